"""One answer of several: who wins, who never does, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from test_select import row

from selfrefine.config import Config, EvaluateConfig, GenerateConfig
from selfrefine.engines.scripted import Scripted
from selfrefine.errors import ConfigError, EngineError
from selfrefine.records import Sample
from selfrefine.steps.best_of import check, choose


class Judge(Scripted):
    """p(Yes) of an answer by its text; the other half of what it thinks is No."""

    def __init__(self, **likes: float) -> None:
        super().__init__()
        self.likes = {key.removeprefix("_"): value for key, value in likes.items()}
        self.asked: list[str] = []

    def score(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, bare: bool = False
    ) -> list[tuple[float, ...]]:
        out = []
        for prompt, word in zip(prompts, completions, strict=True):
            text = bytes(i if i < 256 else 10 for i in prompt).decode().split("\n")[3]
            if word == (ord("Y"),):
                self.asked.append(text)
            liked = self.likes[text]
            out.append((math.log(liked if word == (ord("Y"),) else 1 - liked),))
        return out


def answers(*texts: str | None, task: str = "a") -> list[Sample]:
    """None is an answer that was cut off behind a right number."""
    return [
        row(task, i, None, text="7", finish_reason="length")
        if text is None
        else row(task, i, None, text=text)
        for i, text in enumerate(texts)
    ]


def chosen(rows: list[Sample], by: Any, engine: Any = None, **settings: Any) -> tuple[str, dict[str, Any]]:
    [found], _ = choose(rows, by, engine or Judge(), {"majority": settings})
    assert isinstance(found.extra, dict)
    return found.id.removeprefix("a.r1."), msgspec.json.decode(found.extra["best_of"])


def test_majority_takes_the_first_of_the_most_frequent_final_answers() -> None:
    rows = answers("It is 8", "7", "so 7.0", "x = 8", "7!", "none")
    # "7!" is a factorial and "none" has no number: neither has a vote.
    assert chosen(rows[:4], "majority") == ("s0", {"of": 4, "by": "majority", "votes": 2, "voters": 4})
    assert chosen(rows[:3], "majority") == ("s1", {"of": 3, "by": "majority", "votes": 2, "voters": 3})
    assert chosen(rows, "majority") == ("s0", {"of": 6, "by": "majority", "votes": 2, "voters": 4})


def test_what_is_a_final_answer_is_a_setting_of_the_reward() -> None:
    rows = answers("blue 7", "Red  7", "red 7", "green 7")
    assert chosen(rows, "majority")[0] == "s0"
    assert chosen(rows, "majority", extract="text")[0] == "s1"


def test_p_true_takes_what_the_model_believes_most_and_of_equals_the_first() -> None:
    judge = Judge(_7=0.25, _8=0.75, _9=0.75)
    found, how = chosen(answers("7", "9", "8", "9"), "p-true", judge)
    assert (found, how["score"]) == ("s1", pytest.approx(0.75))
    assert sorted(judge.asked) == ["7", "8", "9"]  # equal answers are asked about once


def test_a_weighted_vote_is_neither_the_majority_nor_the_one_best_answer() -> None:
    """7 has 3 votes of 0.125, 8 has 2 of 0.5, 9 has one of 0.875: 0.375 against 1.0 against 0.875."""
    judge = Judge(_7=0.125, _8=0.5, _9=0.875)
    rows = answers("7", "8", "9", "7", "8", "7")
    assert chosen(rows, "majority", judge)[0] == "s0"
    assert chosen(rows, "p-true", judge)[0] == "s2"
    found, how = chosen(rows, "weighted-vote", judge)
    assert (found, how["votes"], how["voters"]) == ("s1", 2, 6)
    assert how["score"] == pytest.approx(1.0 / 2.25)


def test_of_the_winning_camp_the_answer_that_is_believed_most_is_given() -> None:
    judge = Judge(**{"_is 7": 0.25, "_7": 0.75, "_8": 0.75})
    assert chosen(answers("8", "is 7", "7"), "weighted-vote", judge)[0] == "s2"


@pytest.mark.parametrize("by", ["majority", "p-true", "weighted-vote"])
def test_what_was_not_finished_never_wins_over_what_was(by: Any) -> None:
    judge = Judge(_8=0.125)
    failed = replace(row("a", 9, None), id="a.r1.s9", text="", finish_reason="error", error="too long")
    rows = [failed, *answers(None, None, None, "8")]
    assert chosen(rows, by, judge)[0] == "s3"
    assert judge.asked == ([] if by == "majority" else ["8"])
    # Without one: the first that was cut off, then the first that failed, and the row says so.
    left, how = chosen(rows[:4], by, judge)
    assert (left, how) == ("s0", {"of": 4, "by": by, "why": "no sample was finished"})
    assert chosen(rows[:1], by, judge)[0] == "s9"


def test_an_answer_that_cannot_be_judged_never_wins_over_one_that_can() -> None:
    assert chosen(answers("no idea", "maybe", "7"), "majority")[0] == "s2"
    assert chosen(answers("no idea", "maybe"), "majority") == (
        "s0",
        {"of": 2, "by": "majority", "why": "no final answer can be read"},
    )

    class Short(Judge):
        context_tokens = 110  # type: ignore[assignment]  # the question alone has 58

    judge, long = Short(_8=0.125), "9" * 60
    assert chosen(answers(long, "8"), "p-true", judge)[0] == "s1"
    assert chosen(answers(long, long, "8"), "weighted-vote", judge)[0] == "s2"
    assert chosen(answers(long), "p-true", judge)[1]["why"] == "no sample has a score"
    # Two votes that nobody weighed are a majority, and the row says that they were not weighed.
    found, how = chosen(answers("1", long, long), "weighted-vote", Short(_1=0.5))
    assert (found, how["votes"]) == ("s0", 1)
    found, how = chosen(answers(long, long), "weighted-vote", judge)
    assert (found, how["why"]) == ("s0", "no sample has a score")


def test_each_task_gets_one_answer_and_the_tokens_read_are_counted() -> None:
    judge = Judge(_7=0.5, _8=0.25)
    rows = [*answers("8", "7", "7"), *answers("7", "8", task="b")]
    found, read = choose(rows, "p-true", judge, {})
    assert [one.id for one in found] == ["a.r1.s1", "b.r1.s0"]
    # A byte is a token: 4 markers and 3 ends around "question a", a digit, and the question of 58.
    assert read == 4 * (4 + 3 + 10 + 1 + 58)


def test_a_model_that_cannot_score_is_refused() -> None:
    class Mute(Scripted):
        capabilities = frozenset({"sample"})  # type: ignore[assignment]

    assert choose(answers("7"), "majority", Mute(), {})[1] == 0
    with pytest.raises(EngineError, match="best-of by p-true needs logprobs"):
        choose(answers("7"), "weighted-vote", Mute(), {})


def test_settings_that_contradict_each_other_are_refused() -> None:
    check(Config(generate=GenerateConfig(best_of=4), evaluate=EvaluateConfig(best_of=4, temperature=1.0)))
    for config, said in (
        (Config(generate=GenerateConfig(best_of=4, n=2)), "leave out generate.n"),
        (Config(generate=GenerateConfig(by="p-true")), "set generate.best_of"),
        (Config(generate=GenerateConfig(best_of=4, temperature=0.0)), "at temperature 0"),
        (Config(evaluate=EvaluateConfig(best_of=4)), "set evaluate.temperature=1"),
    ):
        with pytest.raises(ConfigError, match=said):
            check(config)
    with pytest.raises(ConfigError, match="does not work in a run"):
        check(Config(generate=GenerateConfig(best_of=4)), in_run=True)
