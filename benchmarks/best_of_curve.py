"""Accuracy against tokens, when one answer of N is given: from stored answers, without a model.

For N below 16 the samples of a task are cut into 16 / N disjoint sets; a task's figure is the mean over them,
so that every N uses all samples and its intervals are over tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from benchmarks.best_of_rows import SAMPLES, Arm, Judged, judgement
from selfrefine.config import By
from selfrefine.records import Sample
from selfrefine.rewards import REWARDS, majority
from selfrefine.rewards.base import own_settings
from selfrefine.stats import Difference, Interval, interval, paired_difference
from selfrefine.steps.best_of import finished, pick

SIZES = (2, 4, 8, 16)
BY: tuple[By, ...] = ("majority", "p-true", "critic", "weighted-vote")
ORACLE = "oracle"
GREEDY = "greedy"
Scores = dict[str, float | None]
"""By task id."""


class Point(Struct, frozen=True, kw_only=True):
    """One way to answer. Tokens per task: `sampled`, and `scored`, those of the questions whether an answer
    is right (equal answers are asked about once)."""

    by: str
    n: int
    scores: Scores
    accuracy: Interval
    gain: Difference
    """Over the greedy answer, paired by task."""
    over_majority: Difference | None
    """Over the majority of the same samples."""
    sampled: float
    scored: float


class Separation(Struct, frozen=True, kw_only=True):
    """How well a judge's probability (p(Yes), p(ok)) tells right answers from wrong ones."""

    right: float | None
    wrong: float | None
    """Its means."""
    within: Interval
    """Over tasks that were answered both ways: how often a right answer has the higher one of two, a tie
    counting half. 0.5 is chance."""


def curve(arm: Arm, settings: dict[str, dict[str, Any]]) -> list[Point]:
    """Greedy, one sample, then each N by each method. settings: the [reward] table."""
    greedy: Scores = {key: row.reward for key, row in arm.greedy.items()}
    tokens = [len(row.token_ids) for row in arm.greedy.values()]
    points = [_point(GREEDY, 1, greedy, greedy, None, _mean(tokens), 0.0)]
    chosen = _chooser(settings)
    single = {key: _of_sets(rows, 1, lambda own: own[0].reward) for key, rows in arm.samples.items()}
    each = _mean([len(row.token_ids) for rows in arm.samples.values() for row in rows])
    points.append(_point("one sample", 1, single, greedy, None, each, 0.0))
    for n in SIZES:
        sets = [own for rows in arm.samples.values() for own in _sets(rows, n)]
        yes, ok = (_mean([_read(own, of) for own in sets]) for of in (_of_p_true, _of_critic))
        read = {"p-true": yes, "weighted-vote": yes, "critic": ok}
        voted: Scores | None = None
        for by in (*BY, ORACLE):
            found = {
                key: _of_sets(rows, n, lambda own, by=by: chosen(own, by))  # type: ignore[misc]
                for key, rows in arm.samples.items()
            }
            points.append(_point(by, n, found, greedy, voted, n * each, read.get(by, 0.0)))
            voted = found if by == "majority" else voted
    return points


def separation(arm: Arm, of: Callable[[Judged], float | None]) -> Separation:
    """Of finished answers with a reward of 1 (right) or less (wrong), whose probability is known."""
    sides: tuple[list[float], list[float]] = ([], [])
    shares: list[float | None] = []
    for rows in arm.samples.values():
        own: tuple[list[float], list[float]] = ([], [])
        for row in rows:
            if finished(row) and row.reward is not None and (p := of(judgement(row))) is not None:
                own[0 if row.reward >= 1.0 else 1].append(p)
        for side, more in zip(sides, own, strict=True):
            side.extend(more)
        if all(own):
            won = sum((right > wrong) + (right == wrong) / 2 for right in own[0] for wrong in own[1])
            shares.append(won / (len(own[0]) * len(own[1])))
    right, wrong = (_mean(side) if side else None for side in sides)
    return Separation(right=right, wrong=wrong, within=interval(shares))


def _chooser(settings: dict[str, dict[str, Any]]) -> Callable[[Sequence[Sample], str], float | None]:
    own, _ = own_settings(REWARDS.get("majority"), settings.get("majority", {}))

    def reward(rows: Sequence[Sample], by: str) -> float | None:
        if by == ORACLE:
            return max((row.reward for row in rows if row.reward is not None), default=None)
        voices = [majority.voice(row, own) for row in rows]
        told = [judgement(row) for row in rows]
        scores = [one.p_ok if by == "critic" else one.p_yes for one in told]
        place, _ = pick(rows, by, voices, scores)  # type: ignore[arg-type]
        return rows[place].reward

    return reward


def _sets(rows: Sequence[Sample], n: int) -> list[Sequence[Sample]]:
    """Disjoint, by index."""
    ordered = sorted(rows, key=lambda row: row.index)
    return [ordered[start : start + n] for start in range(0, SAMPLES, n)]


def _of_sets(
    rows: Sequence[Sample], n: int, reward: Callable[[Sequence[Sample]], float | None]
) -> float | None:
    """The mean over the sets whose chosen answer has a reward; None where none has."""
    found = [value for own in _sets(rows, n) if (value := reward(own)) is not None]
    return _mean(found) if found else None


def _read(rows: Sequence[Sample], of: Callable[[Judged], int]) -> int:
    return sum({row.text: of(judgement(row)) for row in rows if finished(row)}.values())


def _of_p_true(one: Judged) -> int:
    return one.read


def _of_critic(one: Judged) -> int:
    return one.read_by_critic


def _point(
    by: str, n: int, scores: Scores, greedy: Scores, voted: Scores | None, sampled: float, scored: float
) -> Point:
    return Point(
        by=by,
        n=n,
        scores=scores,
        accuracy=interval(list(scores.values())),
        gain=paired_difference(greedy, scores),
        over_majority=None if voted is None or by == ORACLE else paired_difference(voted, scores),
        sampled=sampled,
        scored=scored,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
