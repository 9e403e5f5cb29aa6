"""Contexts tried on training tasks: when one is better."""

from __future__ import annotations

import pytest

from selfrefine.records import Message, Sample, Task
from selfrefine.stages import hints
from selfrefine.steps.in_context import Context


def test_a_context_that_makes_answers_unreadable_is_not_better() -> None:
    """Without it 10 of 40 are right; with it 20, and 20 have no score: a gain on what was left over."""
    tasks = [Task(id=f"{i:02}", prompt=(Message(role="user", content="?"),)) for i in range(40)]

    def row(i: int, arm: int, reward: float | None) -> Sample:
        return Sample(id=f"{i}.{arm}", task=tasks[i], policy="p", text="", index=arm, reward=reward)

    plain = [row(i, 0, float(i < 10)) for i in range(40)]
    some = [row(i, 1, 1.0 if i < 20 else None) for i in range(40)]
    context = Context(kind="hint", system="!")
    (trial,) = hints.judged([*plain, *some], [(context, "!")], 1)
    assert (trial.tasks, trial.without, trial.with_) == (20, 0.5, 1.0)
    assert trial.p_value is not None and trial.p_value < 0.05 and not trial.better
    (whole,) = hints.judged([*plain, *(row(i, 1, float(i < 20)) for i in range(40))], [(context, "!")], 1)
    assert whole.better


def test_contexts_that_are_tried_together_share_the_level() -> None:
    """5 of 5 changes for the better have p = 1/32: below 0.05 for one that is tried alone, above 0.025 for
    one of two. Two tries at the whole level would be right by chance twice as often."""

    def arm(index: int, right: int) -> list[Sample]:
        tasks = [Task(id=f"{i}", prompt=(Message(role="user", content="?"),)) for i in range(8)]
        return [
            Sample(
                id=f"{i}.{index}", task=tasks[i], policy="p", text="", index=index, reward=float(i < right)
            )
            for i in range(8)
        ]

    hint = (Context(kind="hint", system="!"), "!")
    (alone,) = hints.judged([*arm(0, 0), *arm(1, 5)], [hint], 1)
    assert alone.p_value == pytest.approx(1 / 32) and alone.better
    first, second = hints.judged([*arm(0, 0), *arm(1, 5), *arm(2, 6)], [hint, hint], 1)
    assert not first.better
    assert second.p_value == pytest.approx(1 / 64) and second.better
