"""gym: reasoning-gym's own scorers behind lenient extraction."""

from __future__ import annotations

from typing import Any

import pytest
import reasoning_gym
from making import made

from selfrefine.records import Message, Reward, Sample, Task
from selfrefine.rewards import gym


def judge(text: str, meta: dict[str, Any]) -> Reward:
    task = Task(id="t", prompt=(Message(role="user", content="?"),), meta=meta)
    (reward,) = made("gym").score([Sample(id="s", task=task, text=text)])
    return reward


def chain(answer: str) -> dict[str, Any]:
    return {"gym": {"dataset": "chain_sum", "entry": {"question": "?", "answer": answer, "metadata": {}}}}


@pytest.mark.parametrize("text", ["-4", "4 - 8 = -4.", "The answer is **-4**", "-4.0", "$-4$"])
def test_a_right_number_in_a_wordy_answer_gets_full_marks(text: str) -> None:
    assert judge(text, chain("-4")).value == 1.0


@pytest.mark.parametrize("text", ["14", "4.5", "40", "I know that 4 is wrong, so 5"])
def test_a_wrong_number_that_contains_the_right_one_gets_none(text: str) -> None:
    # reasoning-gym alone: 0.5 for "14", which best-of-n would train on
    assert (
        reasoning_gym.get_score_answer_fn("chain_sum")(answer="14", entry=chain("4")["gym"]["entry"]) == 0.5
    )
    reward = judge(text, chain("4"))
    assert reward.value == 0.0
    assert reward.detail is not None
    assert reward.detail.endswith("is wrong")


def test_no_number_is_a_wrong_answer() -> None:
    assert judge("no idea", chain("4")).value == 0.0


def test_what_is_not_one_number_is_the_scorers_to_judge() -> None:
    # Unscored, a policy that answers with an expression would lose no task and be measured on the others.
    assert judge("four", chain("4")).value == 0
    echoed = judge("2 + 2", chain("4"))
    assert (echoed.value, echoed.detail) == (0, "not right: an unevaluated operation")
    assert judge("2 + 4", chain("4")).value == 0  # the last number is no answer, and no part of one


def test_a_text_answer_goes_to_the_scorer_as_it_is() -> None:
    entry = reasoning_gym.create_dataset("spell_backward", size=1, seed=1)[0]
    meta = {"gym": {"dataset": "spell_backward", "entry": entry}}
    assert judge(f" {entry['answer']}\n", meta).value == 1.0
    assert judge("nonsense", meta).value != 1.0


def test_what_cannot_be_scored_says_why() -> None:
    assert "meta.gym" in str(judge("4", {}).error)
    assert "no reference, and none in meta.gym.entry" in str(
        judge("4", {"gym": {"dataset": "chain_sum"}}).error
    )
    assert "no reference" in str(judge("4", {"gym": {"dataset": "chain_sum", "entry": "4"}}).error)
    unknown = {"gym": {"dataset": "nope", "entry": {"answer": "4"}}}
    assert judge("4", unknown).error == "reasoning-gym has no dataset 'nope'"


def test_a_scorer_that_raises_fails_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(answer: str, entry: dict[str, Any]) -> float:
        return 1 / len(answer.replace("4", ""))

    monkeypatch.setattr(gym, "_scorer", lambda dataset: (broken, "broken"))
    assert judge("4", chain("4")).error == "ZeroDivisionError: division by zero"
    assert judge("5", chain("4")).value == 1.0
