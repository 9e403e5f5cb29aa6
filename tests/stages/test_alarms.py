"""Alarms: each at its threshold, and silent where there is nothing to say."""

from __future__ import annotations

import pytest

from selfrefine.records import Message, Sample, Task
from selfrefine.stages import alarms
from selfrefine.steps.critique_outcome import Outcome, PassOutcome
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
    assert one.reason == "alarm: 50% of the answers are cut off at max_new_tokens (alarms.truncated 0.5)"
    assert alarms.of_drawn(drawn([cut, whole, whole]), SETTINGS) == []
    assert alarms.of_drawn(drawn([sample(finish_reason="error", error="x")]), SETTINGS) == []


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


def test_unreadable_verdicts_ring() -> None:
    """Of the critiques that were written: one that the engine could not make has no verdict to read."""

    def outcome(critiques: int, unparsed: int, failed: int = 0) -> Outcome:
        one = PassOutcome(critiques=critiques, unparsed=unparsed, failed=failed)
        return Outcome(passes=(one,), failed_critiques=failed)

    assert names(alarms.of_critiques(outcome(3, 1, failed=1), SETTINGS)) == ["unparsed"]  # 1 of 2
    assert alarms.of_critiques(outcome(3, 1), SETTINGS) == []
    assert alarms.of_critiques(Outcome(), SETTINGS) == []


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
