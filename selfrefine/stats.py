"""Intervals and paired tests for what is measured; every figure says by which method it was made.

Legend: N tasks, S statistics of a task, T trials. SciPy is imported inside functions: it takes seven times as
long to load as NumPy, and listing or showing runs does without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from selfrefine.seeds import derive, generator

RESAMPLES = 2_000
TRIALS = 10_000
"""Random arrangements of a permutation test, where there are too many to try all."""
EXACT = 14
"""Up to so many tasks that changed, a permutation test tries all 2^n arrangements."""
_SAME = 1e-9
"""Scores that differ by less differ in their rounding only."""
_CELLS = 1 << 22
"""Resampled values held at once (32 MB), so that memory does not grow with the number of values."""


class Interval(Struct, frozen=True, kw_only=True):
    """A mean with its interval; lo and hi are None where the data cannot tell, and `method` says why."""

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


class Comparison(Struct, frozen=True, kw_only=True):
    """Two policies on the same tasks: a `Difference` with the p-value of a paired test.

    before and after are over the `n` tasks scored under both; `unscored` ones were not. `ties` changed in
    nothing. lo and hi enclose the difference at `level`.
    """

    before: float | None
    after: float | None
    difference: float | None
    lo: float | None
    hi: float | None
    level: float
    p_value: float | None
    test: str
    """mcnemar-exact, permutation-exact, permutation-10000 or randomisation-10000; none where n is 0."""
    n: int
    ties: int
    unscored: int


Alternative = Literal["greater", "two-sided"]
"""greater: after is better than before."""
Scores = Mapping[str, float | None]
"""By task id; null where a task could not be scored."""


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion, inside [0, 1] and honest at 0 of n and n of n.

    Raises: ValueError unless 0 <= successes <= n and n >= 1.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n >= 1, not {successes} of {n}")
    from scipy.stats import binomtest

    found = binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def fewest(level: float) -> int:
    """How many values (of paired differences: how many that are not zero) an interval at `level` needs.

    A bootstrap interval lies within the range of its values. The range of n values misses the middle of what
    they were drawn from with probability 2^(1-n), and no sign-flip test of n changes has a smaller two-sided
    p. So with n where that is above 1 - level, an interval would claim what no test may: 6 at 0.95.
    """
    return math.ceil(1 - math.log2(1 - level) - 1e-9)


def interval(values: Sequence[float | None], seed: int = 0, level: float = 0.95) -> Interval:
    """Mean and interval of scores in [0, 1]: Wilson where all are 0 or 1, else a seeded percentile bootstrap.

    Graded scores that are few (`fewest`) get no interval, and those that are all equal get `_constant`'s.
    None is a score that could not be computed: left out and counted in `unscored`.
    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    scores = np.array([value for value in values if value is not None], dtype=np.float64)
    n, unscored = len(scores), len(values) - len(scores)
    if n == 0:
        return Interval(mean=None, lo=None, hi=None, n=0, unscored=unscored)
    mean = float(scores.mean())
    if np.all((scores == 0) | (scores == 1)):
        lo, hi = wilson(int(scores.sum()), n, level)
        return Interval(mean=mean, lo=lo, hi=hi, n=n, unscored=unscored, method="wilson")
    ends, method = _graded(scores, n, derive(seed, "bootstrap", "mean"), level, least=0.0)
    return Interval(mean=mean, lo=ends[0], hi=ends[1], n=n, unscored=unscored, method=method)


def paired_difference(
    before: Mapping[str, float | None],
    after: Mapping[str, float | None],
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Scores in [0, 1] by task id, twice: the mean change and its percentile bootstrap interval over tasks.

    Pairing takes the tasks' own difficulty out of the comparison, which two separate intervals leave in.
    Where few tasks changed (`fewest`) there is no interval; where all changed alike it is `_constant`'s.
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
    changed = int(np.count_nonzero(np.abs(data) > _SAME))
    ends, method = _graded(data, changed, derive(seed, "bootstrap", "paired"), level, least=-1.0)
    mean, method = float(data.mean()), method if ends[0] is None else f"paired-{method}"
    return Difference(mean=mean, lo=ends[0], hi=ends[1], n=n, dropped=dropped, method=method)


def compare(
    before: Scores, after: Scores, seed: int = 0, level: float = 0.95, alternative: Alternative = "two-sided"
) -> Comparison:
    """Exact McNemar where every score is 0 or 1, else a paired permutation test; tasks scored under both."""
    found = paired_difference(before, after, seed, level)
    pairs = [(b, a) for k, b in sorted(before.items()) if b is not None and (a := after.get(k)) is not None]
    if not pairs:
        return nothing_compared(found.dropped, level)
    changes = [a - b for b, a in pairs]
    if all(value in (0.0, 1.0) for pair in pairs for value in pair):
        better, worse = sum(c > 0 for c in changes), sum(c < 0 for c in changes)
        p_value, test = mcnemar(worse, better, alternative), "mcnemar-exact"
    else:
        p_value, test = permutation(changes, derive(seed, "permutation"), alternative)
    return Comparison(
        before=math.fsum(b for b, _ in pairs) / len(pairs),
        after=math.fsum(a for _, a in pairs) / len(pairs),
        difference=found.mean,
        lo=found.lo,
        hi=found.hi,
        level=level,
        p_value=p_value,
        test=test,
        n=len(pairs),
        ties=sum(c == 0 for c in changes),
        unscored=found.dropped,
    )


def nothing_compared(unscored: int, level: float = 0.95) -> Comparison:
    """No task was scored under both policies."""
    return Comparison(
        before=None,
        after=None,
        difference=None,
        lo=None,
        hi=None,
        level=level,
        p_value=None,
        test="none",
        n=0,
        ties=0,
        unscored=unscored,
    )


def mcnemar(worse: int, better: int, alternative: Alternative = "two-sided") -> float:
    """p of `better` tasks that became right against `worse` that became wrong; the others say nothing.

    Exact: under the null each of them is a coin toss, however many tasks did not change.
    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions".
    """
    from scipy.stats import binomtest

    return float(binomtest(better, n, alternative=alternative).pvalue) if (n := worse + better) else 1.0


def permutation(
    changes: Sequence[float], seed: int, alternative: Alternative = "two-sided"
) -> tuple[float, str]:
    """p of the mean of paired changes, and how it was made: under the null each sign is a coin toss.

    All arrangements where at most EXACT tasks changed, else TRIALS random ones, the observed one counted
    among them: without that +1 p could be 0 and the test would be too eager.
    Source: Fisher 1935, "The design of experiments" §21; Phipson & Smyth 2010 for the +1.
    """
    # Not scipy.stats.permutation_test: its random signs are others, so recorded p-values would change.
    data = np.array([c for c in changes if c != 0.0], dtype=np.float64)
    n = len(data)
    # Sums in another order round otherwise: the observed arrangement must count as being as large as itself.
    least = abs(data.sum()) if alternative == "two-sided" else data.sum()
    least -= 1e-10 * np.abs(data).sum()

    def extreme(signs_TN: NDArray[np.int8]) -> int:
        sums = (signs_TN * 2.0 - 1.0) @ data
        return int(np.count_nonzero((np.abs(sums) if alternative == "two-sided" else sums) >= least))

    if n <= EXACT:
        every = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1
        return extreme(every.astype(np.int8)) / (1 << n), "permutation-exact"
    rng = generator(seed)
    hits = sum(extreme(rng.integers(2, size=(t, n), dtype=np.int8)) for t in _pieces(TRIALS, n))
    return (hits + 1) / (TRIALS + 1), f"permutation-{TRIALS}"


def compare_corpus(
    before: Mapping[str, Sequence[float] | None],
    after: Mapping[str, Sequence[float] | None],
    score: Callable[[Sequence[float]], float],
    seed: int = 0,
    level: float = 0.95,
    alternative: Alternative = "two-sided",
) -> Comparison:
    """For a figure of the whole corpus (BLEU), which is not the mean of its sentences' figures.

    By task id what a task adds to the corpus statistics (S numbers); `score` makes the figure of their sums.
    The interval is a percentile bootstrap over tasks, the p-value approximate randomisation. No interval
    where few tasks changed (`fewest`), or where every resample has the same gain.
    """
    ids = [k for k in sorted(before) if before[k] is not None and after.get(k) is not None]
    dropped = len(before.keys() | after.keys()) - len(ids)
    if not ids:
        return nothing_compared(dropped, level)
    old_NS, new_NS = (np.array([side[k] for k in ids], dtype=np.float64) for side in (before, after))
    old, new = score(old_NS.sum(0).tolist()), score(new_NS.sum(0).tolist())
    rng = generator(derive(seed, "bootstrap", "corpus"))
    gains = [
        score(new_NS[picks].sum(0).tolist()) - score(old_NS[picks].sum(0).tolist())
        for picks in (rng.integers(0, len(ids), size=len(ids)) for _ in range(RESAMPLES))
    ]
    ties = int(np.all(old_NS == new_NS, axis=1).sum())
    known = len(ids) - ties >= fewest(level) and np.ptp(gains) > _SAME
    lo, hi = np.quantile(gains, [(1 - level) / 2, (1 + level) / 2]) if known else (None, None)
    chances = generator(derive(seed, "randomisation"))
    return Comparison(
        before=old,
        after=new,
        difference=new - old,
        lo=None if lo is None else float(lo),
        hi=None if hi is None else float(hi),
        level=level,
        p_value=randomisation(old_NS, new_NS, score, chances, alternative),
        test=f"randomisation-{TRIALS}",
        n=len(ids),
        ties=ties,
        unscored=dropped,
    )


def randomisation(
    before_NS: NDArray[np.float64],
    after_NS: NDArray[np.float64],
    score: Callable[[Sequence[float]], float],
    rng: np.random.Generator,
    alternative: Alternative = "two-sided",
) -> float:
    """p of a difference in a corpus figure: TRIALS times, each task's two answers change sides by a coin.

    Two-sided and with NumPy's default generator it is sacreBLEU's, trial for trial, but for ties: there a
    trial equal to the observed difference does not count, so that two equal systems get p = 1/(T + 1).
    Source: Riezler & Maxwell 2005, "On some pitfalls in automatic evaluation and significance testing".
    """
    sign = abs if alternative == "two-sided" else float
    observed = sign(score(after_NS.sum(0).tolist()) - score(before_NS.sum(0).tolist()))
    hits = 0
    for trials in _pieces(TRIALS, len(before_NS)):
        stay_TN = rng.integers(2, size=(trials, len(before_NS)), dtype=bool).astype(np.float64)
        one_TS = stay_TN @ before_NS + (1 - stay_TN) @ after_NS
        other_TS = (1 - stay_TN) @ before_NS + stay_TN @ after_NS
        for one, other in zip(one_TS.tolist(), other_TS.tolist(), strict=True):
            hits += sign(score(other) - score(one)) >= observed - 1e-12
    return (hits + 1) / (TRIALS + 1)


def smallest_detectable(values: Sequence[float], alpha: float = 0.05, power: float = 0.8) -> float | None:
    """The smallest gain over these scores of a starting policy that a one-sided paired test at `alpha` shows
    with probability `power`; None where no gain that is possible is shown so surely, or nothing is known.

    How strongly the two policies' answers to a task go together is not known beforehand: they are taken as
    independent, the worst case of what is likely. Right/wrong scores solve
    gain * sqrt(n) = z_alpha * sqrt(d) + z_power * sqrt(d - gain^2) with d the share of tasks that change.
    Source: Connor 1987, "Sample size for testing differences in proportions for the paired-sample design".
    """
    n, mean = len(values), math.fsum(values) / max(1, len(values))
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha), NormalDist().inv_cdf(power)
    if not n:
        return None
    if not all(value in (0.0, 1.0) for value in values):
        gain = (z_alpha + z_power) * math.sqrt(2 / n) * float(np.std(values, ddof=1)) if n > 1 else 0.0
        return gain if 0.0 < gain <= 1.0 - mean else None

    def too_small(gain: float) -> bool:
        change = mean * (1 - mean - gain) + (1 - mean) * (mean + gain)
        needed = z_alpha * math.sqrt(change) + z_power * math.sqrt(max(0.0, change - gain**2))
        return gain * math.sqrt(n) < needed

    low, high = 0.0, 1.0 - mean
    if too_small(high):
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return high


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Rank correlation in [-1, 1], ties at their mean rank; None where one side does not vary.

    Source: Spearman 1904, "The proof and measurement of association between two things".
    """
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)


def _pieces(total: int, width: int) -> Iterator[int]:
    """`total` rows of `width` numbers in pieces of at most _CELLS numbers."""
    rows = max(1, _CELLS // max(1, width))
    for start in range(0, total, rows):
        yield min(rows, total - start)


def _graded(
    data: NDArray[np.float64], telling: int, seed: int, level: float, least: float
) -> tuple[tuple[float, float] | tuple[None, None], str]:
    """The ends of the mean's interval, and the method. Values in [least, 1]; `telling` of them count."""
    if np.ptp(data) <= _SAME and len(data) >= fewest(level):
        return _constant(float(data[0]), len(data), level, least), "constant-exact"
    if telling < fewest(level):
        return (None, None), f"none: {telling} of {len(data)} values usable, {fewest(level)} needed"
    return _bootstrap(data, seed, level), f"bootstrap-{RESAMPLES}"


def _constant(value: float, n: int, level: float, least: float) -> tuple[float, float]:
    """Of n equal values in [least, 1], whose resamples are all the same: a width of zero would be a lie.

    Up to q = 1 - (alpha / 2)^(1 / n) of what they were drawn from may differ from them (Clopper-Pearson's
    limit at 0 of n), and lie at either end of the range. Changes of 1 leave zero out from `fewest` on.
    Source: Hanley & Lippman-Hand 1983, "If nothing goes wrong, is everything all right?".
    """
    q = 1 - ((1 - level) / 2) ** (1 / n)
    return value - q * (value - least), value + q * (1 - value)


def _bootstrap(data: NDArray[np.float64], seed: int, level: float) -> tuple[float, float]:
    """Percentiles of the means of RESAMPLES draws with replacement; data_N, N >= 2.

    To the digit those of `scipy.stats.bootstrap`, method "percentile", which takes a second to load.
    """
    rng, pieces = generator(seed), max(1, _CELLS // len(data))
    means = np.concatenate(
        [
            data[rng.integers(0, len(data), (min(pieces, RESAMPLES - done), len(data)))].mean(axis=-1)
            for done in range(0, RESAMPLES, pieces)
        ]
    )
    means.sort()
    alpha = (1 - level) / 2
    return _quantile(means, alpha), _quantile(means, 1 - alpha)


def _quantile(sorted_N: NDArray[np.float64], share: float) -> float:
    """Between two neighbours, as SciPy weighs them: NumPy's differs in the last digit, and figures that were
    recorded would change."""
    at, part = divmod(share * len(sorted_N) + (1 - share), 1)
    low, high = (min(max(0, int(at) + i), len(sorted_N) - 1) for i in (-1, 0))
    return float((1 - part) * sorted_N[low] + part * sorted_N[high])
