"""Alarms: each at its threshold, and silent where there is nothing to say."""

from __future__ import annotations

from typing import Any

import pytest

from selfrefine.config import Config, ObjectiveConfig
from selfrefine.engines.scripted import Scripted
from selfrefine.records import Message, Sample, Task
from selfrefine.stages import alarms
from selfrefine.stages.progress import Silent
from selfrefine.stages.reward import Reward
from selfrefine.stages.session import Session
from selfrefine.steps.critique_outcome import NearSums, Outcome, PassOutcome
from selfrefine.steps.generate import drawn
from selfrefine.steps.reward import scored_sums
from selfrefine.thresholds import AlarmsConfig

SETTINGS = AlarmsConfig()


def sample(task: str = "t", index: int = 0, **more: object) -> Sample:
    asked = Task(id=task, prompt=(Message(role="user", content="?"),))
    return Sample(id=f"{task}.r1.s{index}", task=asked, index=index, **more)  # type: ignore[arg-type]


def names(found: list[alarms.Alarm]) -> list[str]:
    return [one.name for one in found]


def test_half_of_the_answers_cut_off_rings() -> None:
    """A 256-token limit once clipped every completion; nothing was learnt, silently."""
    cut, whole = sample(finish_reason="length"), sample()
    [one] = alarms.of_drawn(drawn([cut, whole]), SETTINGS)
    assert (one.name, one.value, one.limit) == ("truncated", 0.5, 0.5)
    assert one.reason == "alarm: 50 % of the answers are cut off at max_new_tokens (alarms.truncated 0.5)"
    assert alarms.of_drawn(drawn([cut, whole, whole]), SETTINGS) == []
    assert alarms.of_drawn(drawn([sample(finish_reason="error", error="x")]), SETTINGS) == []


def test_a_base_model_that_does_not_end_its_answers_rings_early_with_the_stop_that_ends_them() -> None:
    """126 of 128 were cut off and nothing was learnt; it could be known after the first batch."""
    on = "5\nQ: and 3 + 4?\nA: 7\nQ: and 4 +"
    rows = [sample(f"t{i}", text=on, finish_reason="length") for i in range(31)] + [sample("t31", text="5")]
    [one] = alarms.run_on_early(drawn(rows), SETTINGS, template=False)
    assert one.reason == (
        "alarm: 97 % of the answers are cut off at max_new_tokens: the model has no chat template; "
        'generate.stop=["\\n"] ends them (alarms.truncated 0.5)'
    )
    assert alarms.of_drawn(drawn(rows), SETTINGS, template=False) == [one]  # the same at the end, said once
    [told] = alarms.run_on_early(drawn(rows), SETTINGS, template=None)
    assert "they go on after the first line" in told.reason
    # Too early to tell, half of them, one long line of a chat model: nothing, or the plain alarm at the end.
    assert alarms.run_on_early(drawn(rows[:31]), SETTINGS, template=False) == []
    half = rows[:16] + [sample(f"u{i}", text="5") for i in range(16)]
    assert alarms.run_on_early(drawn(half), SETTINGS, template=False) == []
    # Trap: a stop text that was set, and did not end them, was suggested again.
    line = [sample(f"t{i}", text="5 and 7 and", finish_reason="length") for i in range(32)]
    assert alarms.run_on_early(drawn(line), SETTINGS, False, ("\n",)) == []
    assert (
        "generate.stop" not in alarms.of_drawn(drawn(line), SETTINGS, template=False, given=("\n",))[0].reason
    )
    [told] = alarms.run_on_early(drawn(rows), SETTINGS, False, (";",))
    assert 'generate.stop=[";", "\\n"] ends them' in told.reason
    long = [sample(f"t{i}", text="well, well", finish_reason="length") for i in range(32)]
    assert alarms.run_on_early(drawn(long), SETTINGS, template=True) == []
    assert "generate.stop" not in alarms.of_drawn(drawn(long), SETTINGS, template=True)[0].reason


def test_no_template_is_told_by_its_hash() -> None:
    """Trap: the engine hashes a word where there is no template, and the word is known here too."""
    from types import SimpleNamespace

    from selfrefine.engines.chat import ChatEncoder
    from selfrefine.stages.session import has_template

    def known(template: str | None) -> bool | None:
        bare: Any = SimpleNamespace(chat_template=template, added_tokens_decoder={}, all_special_tokens=[])
        return has_template(ChatEncoder(bare).template_sha256)

    assert (known(None), known("{{ messages }}"), has_template("")) == (False, True, None)


def test_a_policy_that_says_one_thing_only_rings_unless_it_was_asked_greedily() -> None:
    certain = [sample(logprobs=(-0.001, -0.002))]
    assert names(alarms.of_drawn(drawn(certain), SETTINGS)) == ["entropy"]
    assert alarms.of_drawn(drawn(certain), SETTINGS, temperature=0.0) == []
    assert alarms.of_drawn(drawn([sample(logprobs=(-0.02,))]), SETTINGS) == []


def test_groups_without_spread_ring() -> None:
    flat = [sample(f"f{t}", i, reward=0.0) for t in range(19) for i in range(2)]
    lively = [sample("x", 0, reward=0.0), sample("x", 1, reward=1.0)]
    alone, unscored = [sample("y", reward=0.0)], [sample("z", 0), sample("z", 1)]
    [one] = alarms.of_rewards(scored_sums([*flat, *lively, *alone, *unscored], ()), SETTINGS)
    assert (one.name, one.value) == ("no_spread", 0.95)  # 19 of the 20 groups that could have spread
    assert alarms.of_rewards(scored_sums([*flat[:36], *lively], ()), SETTINGS) == []


@pytest.mark.parametrize(("objective", "rings"), [("sft", ["no_spread"]), ("distil", [])])
def test_where_no_reward_is_learnt_from_equal_ones_are_no_alarm(objective: str, rings: list[str]) -> None:
    """A teacher's answers to tasks without a reference may all be worth 0 and teach as much."""
    total = scored_sums([sample(f"f{t}", i, reward=0.0) for t in range(9) for i in range(2)], ())
    config = Config(objective=ObjectiveConfig(name=objective))
    stage = Reward(Session(config, Silent(), Scripted))
    assert names(stage.alarms(total)) == rings


def test_unreadable_verdicts_ring() -> None:
    """Of the critiques that were written: one that the engine could not make has no verdict to read."""

    def outcome(critiques: int, unparsed: int, failed: int = 0) -> Outcome:
        one = PassOutcome(critiques=critiques, unparsed=unparsed, failed=failed)
        return Outcome(passes=(one,), failed_critiques=failed)

    assert names(alarms.of_critiques(outcome(3, 1, failed=1), SETTINGS)) == ["unparsed"]  # 1 of 2
    assert alarms.of_critiques(outcome(3, 1), SETTINGS) == []
    assert alarms.of_critiques(Outcome(), SETTINGS) == []


def test_revisions_that_should_go_on_from_a_fault_and_begin_anew_ring() -> None:
    """`critique.revise_from = fault` with rewards that place none would be `start`, without a word."""
    some = Outcome(near=NearSums(revisions=4, resumed=3))
    none = Outcome(near=NearSums(revisions=4))
    assert names(alarms.of_critiques(none, SETTINGS, resume=True)) == ["unplaced"]
    assert alarms.of_critiques(some, SETTINGS, resume=True) == []
    assert alarms.of_critiques(none, SETTINGS) == []


@pytest.mark.parametrize(
    ("grad_norm", "metrics", "rings"),
    [
        (10.0, {}, []),
        (10.5, {}, ["grad_norm"]),
        (1.0, {"kl": 2.0, "clip_share": 0.79, "entropy": 0.01}, []),
        (1.0, {"kl": 2.1, "clip_share": 0.8, "entropy": 0.009}, ["kl", "clip_share", "entropy"]),
        (1.0, {"kl": -5.0, "margin": 99.0}, []),
    ],
)
def test_a_training_step_rings(grad_norm: float, metrics: dict[str, float], rings: list[str]) -> None:
    found = alarms.of_step(7, grad_norm, metrics, SETTINGS)
    assert names(found) == rings
    assert all("(alarms." in one.reason for one in found)
