"""Intervals for what is measured. NumPy only; every figure says by which method it was made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from selfrefine.seeds import derive, generator

RESAMPLES = 2_000
_CELLS = 1 << 22
"""Resampled values held at once (32 MB), so that memory does not grow with the number of values."""


class Interval(Struct, frozen=True, kw_only=True):
    """A mean with its interval. None where the data cannot tell: no value, or one graded value alone."""

    mean: float | None
    lo: float | None
    hi: float | None
    n: int
    """Values counted; `unscored` were left out."""
    unscored: int = 0
    method: str = "none"


class Difference(Struct, frozen=True, kw_only=True):
    """after - before over the ids scored in both; `dropped` ids were scored in one or in none."""

    mean: float | None
    lo: float | None
    hi: float | None
    n: int
    dropped: int = 0
    method: str = "none"


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion, inside [0, 1] and honest at 0 of n and n of n.

    Raises: ValueError unless 0 <= successes <= n and n >= 1.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n >= 1, not {successes} of {n}")
    z2 = _z(level) ** 2
    p = successes / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # At the ends the formula gives exactly 0 or 1, floating point nearly so.
    lo = 0.0 if successes == 0 else max(0.0, centre - half)
    hi = 1.0 if successes == n else min(1.0, centre + half)
    return lo, hi


def interval(values: Sequence[float | None], seed: int = 0, level: float = 0.95) -> Interval:
    """Mean and interval of scores: Wilson where all are 0 or 1, else a seeded percentile bootstrap.

    None is a score that could not be computed: left out and counted in `unscored`.
    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    scores = np.array([value for value in values if value is not None], dtype=np.float64)
    n, unscored = len(scores), len(values) - len(scores)
    if n == 0:
        return Interval(mean=None, lo=None, hi=None, n=0, unscored=unscored)
    mean = float(scores.mean())
    if np.all((scores == 0) | (scores == 1)):
        lo, hi = wilson(float(scores.sum()), n, level)
        return Interval(mean=mean, lo=lo, hi=hi, n=n, unscored=unscored, method="wilson")
    if n == 1:  # resampling one value would claim certainty
        return Interval(mean=mean, lo=None, hi=None, n=1, unscored=unscored)
    lo, hi = _bootstrap(scores, derive(seed, "bootstrap", "mean"), level)
    return Interval(mean=mean, lo=lo, hi=hi, n=n, unscored=unscored, method=f"bootstrap-{RESAMPLES}")


def paired_difference(
    before: Mapping[str, float | None],
    after: Mapping[str, float | None],
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Scores by task id, twice: the mean change and its percentile bootstrap interval over tasks.

    Pairing takes the tasks' own difficulty out of the comparison, which two separate intervals leave in.
    """
    ids = before.keys() | after.keys()
    changes: list[float] = []
    for key in sorted(ids):  # a set's order differs between processes, and the resamples with it
        old, new = before.get(key), after.get(key)
        if old is not None and new is not None:
            changes.append(new - old)
    n, dropped = len(changes), len(ids) - len(changes)
    if n == 0:
        return Difference(mean=None, lo=None, hi=None, n=0, dropped=dropped)
    data = np.array(changes, dtype=np.float64)
    if n == 1:
        return Difference(mean=changes[0], lo=None, hi=None, n=1, dropped=dropped)
    lo, hi = _bootstrap(data, derive(seed, "bootstrap", "paired"), level)
    method = f"paired-bootstrap-{RESAMPLES}"
    return Difference(mean=float(data.mean()), lo=lo, hi=hi, n=n, dropped=dropped, method=method)


def smallest_detectable(n: int, p: float = 0.5, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true change of a proportion near `p` that n tasks, measured twice, show with `power`.

    Two-sided, and as if the two measurements were independent: pairing usually does better, never by rule.
    Raises: ValueError when n < 1.
    """
    if n < 1:
        raise ValueError(f"no difference can be detected with {n} tasks")
    return min(1.0, (_z(level) + NormalDist().inv_cdf(power)) * math.sqrt(2 * p * (1 - p) / n))


def _z(level: float) -> float:
    """Half the normal distribution's two-sided `level` interval: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def _bootstrap(data: NDArray[np.float64], seed: int, level: float) -> tuple[float, float]:
    """Percentiles of the means of RESAMPLES draws with replacement; data_N, N >= 2."""
    rng = generator(seed)
    rows = max(1, _CELLS // len(data))
    means: list[NDArray[np.float64]] = []
    for start in range(0, RESAMPLES, rows):
        picks = rng.integers(0, len(data), size=(min(rows, RESAMPLES - start), len(data)))
        means.append(data[picks].mean(axis=1))
    lo, hi = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(lo), float(hi)
