"""How far judges agree with each other, and how far their probabilities agree with what is right.

Each figure is made from `Sums`, so a stream of any length is counted window by window in constant memory:

    total += Calibration.of((p, right) for ...)      then    calibration(total)
    total += VerdictAgreement.of(units)                      then    alpha(total)

Sources: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"; Guo et al. 2017, "On Calibration of
Modern Neural Networks", equations 1 to 3 (reliability bins, ECE); Mann & Whitney 1947 (U, which is the AUC).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from msgspec import Struct

from selfrefine.sums import Sums

BINS = 10
"""Reliability bins of equal width over [0, 1]; bin m is (m/10, (m+1)/10], and 0 is in the first."""
STEPS = 1_000
"""Scores are told apart for the AUC to a thousandth: `Calibration` holds at most 1,001 counts per class."""
_SAME = 1e-9
"""Scores that differ by less differ in their rounding only."""

Pair = tuple[float | None, bool | None]
"""A probability in [0, 1] that something is right, and whether it is. Null where it is not known."""


class Bin(Sums, frozen=True, kw_only=True, omit_defaults=True):
    """Rows of one reliability bin."""

    n: int = 0
    p: float = 0.0
    """Sum of their probabilities."""
    right: int = 0


class Calibration(Sums, frozen=True, kw_only=True, omit_defaults=True):
    """Probabilities against what was right, in sums."""

    bins: tuple[Bin, ...] = ()
    right: dict[int, int] = {}
    """Of right rows: thousandths of the score to how many have it. `wrong` in the same way."""
    wrong: dict[int, int] = {}
    unknown: int = 0
    """Pairs with a null: in no other figure."""

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Self:
        """Of a window of rows. Raises: ValueError for a probability that is not in [0, 1]."""
        bins, seen = [Bin()] * BINS, (Counter[int](), Counter[int]())
        unknown = 0
        for p, right in pairs:
            if p is None or right is None:
                unknown += 1
                continue
            if not 0.0 <= p <= 1.0:
                raise ValueError(f"{p!r} is not a probability")
            place = max(0, math.ceil(p * BINS) - 1)
            old = bins[place]
            bins[place] = Bin(n=old.n + 1, p=old.p + p, right=old.right + bool(right))
            seen[bool(right)][round(p * STEPS)] += 1
        made = tuple(bins) if any(one.n for one in bins) else ()
        return cls(bins=made, right=dict(seen[True]), wrong=dict(seen[False]), unknown=unknown)

    def add(self, p: float | None, right: bool | None) -> Self:
        """With one more pair. For many, `of` a window is cheaper."""
        return self + type(self).of([(p, right)])


class CalibrationBin(Struct, frozen=True, kw_only=True):
    """Rows with a probability in (lo, hi]; the rates are null where there is none."""

    lo: float
    hi: float
    n: int
    mean_p: float | None
    right_rate: float | None


class CalibrationSummary(Struct, frozen=True, kw_only=True):
    """What probabilities are worth. A figure over nothing is null."""

    n: int
    right_rate: float | None
    mean_p: float | None
    ece: float | None
    """Expected calibration error in [0, 1]: mean distance of a bin's mean p from its right-rate, weighted by
    rows. 0: what is said with 70 % is right 70 % of the time."""
    auc: float | None
    """Chance that a right row has the higher probability than a wrong one, a tie counting one half. Null
    where all rows are right or all wrong."""
    tied: float | None
    """Share of pairs of a right and a wrong row with one score, to a thousandth. The AUC of the unrounded
    scores is at most half of this away."""
    bins: tuple[CalibrationBin, ...] = ()
    unknown: int = 0


def calibration(total: Calibration) -> CalibrationSummary:
    """Figures from sums."""
    n, right = sum(one.n for one in total.bins), sum(one.right for one in total.bins)
    area, tied = _area(total.right, total.wrong)
    return CalibrationSummary(
        n=n,
        right_rate=right / n if n else None,
        mean_p=math.fsum(one.p for one in total.bins) / n if n else None,
        ece=math.fsum(abs(one.p - one.right) for one in total.bins) / n if n else None,
        auc=area,
        tied=tied,
        bins=tuple(
            CalibrationBin(
                lo=place / BINS,
                hi=(place + 1) / BINS,
                n=one.n,
                mean_p=one.p / one.n if one.n else None,
                right_rate=one.right / one.n if one.n else None,
            )
            for place, one in enumerate(total.bins)
        ),
        unknown=total.unknown,
    )


def ece(pairs: Iterable[Pair]) -> float | None:
    """Expected calibration error in [0, 1] with BINS bins; pairs with a null are left out, None over none."""
    return calibration(Calibration.of(pairs)).ece


def auc(pairs: Iterable[Pair]) -> float | None:
    """The AUC of scores of any range, unrounded: U / (right * wrong), a tie counting one half.

    Pairs with a null are left out; None where all that is left is right, or wrong.
    """
    seen = (Counter[float](), Counter[float]())
    for p, right in pairs:
        if p is not None and right is not None:
            seen[bool(right)][p] += 1
    return _area(seen[True], seen[False])[0]


def _area(right: Mapping[Any, int], wrong: Mapping[Any, int]) -> tuple[float | None, float | None]:
    """AUC and the share of pairs that tie, from how many have each score."""
    pairs = sum(right.values()) * sum(wrong.values())
    if not pairs:
        return None, None
    below = wins = ties = 0
    for value in sorted({*right, *wrong}):
        here = wrong.get(value, 0)
        wins += right.get(value, 0) * below
        ties += right.get(value, 0) * here
        below += here
    return (wins + ties / 2) / pairs, ties / pairs


class VerdictAgreement(Sums, frozen=True, kw_only=True, omit_defaults=True):
    """Agreement on names (`ok`, `revise`): two of them agree or they do not."""

    units: int = 0
    """Units with two values or more; of `alone` ones nothing is learnt."""
    alone: int = 0
    n: int = 0
    """Values in `units`."""
    counts: dict[str, int] = {}
    apart: float = 0.0
    """Sum over units with m values of (ordered pairs that differ) / (m - 1)."""

    @classmethod
    def of(cls, units: Iterable[Sequence[str | None]]) -> Self:
        """One unit is what all judges said of one thing, null where one said nothing."""
        counts, found, alone, apart = Counter[str](), 0, 0, 0.0
        for unit in units:
            said = Counter(one for one in unit if one is not None)
            m = said.total()
            if m < 2:
                alone += m
                continue
            found += 1
            counts += said
            apart += (m * m - sum(k * k for k in said.values())) / (m - 1)
        return cls(units=found, alone=alone, n=counts.total(), counts=dict(counts), apart=apart)


class ScoreAgreement(Sums, frozen=True, kw_only=True, omit_defaults=True):
    """Agreement on numbers: the square of their distance counts. Fields as in `VerdictAgreement`."""

    units: int = 0
    alone: int = 0
    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    apart: float = 0.0
    """Sum over units with m values of (squared distances of ordered pairs) / (m - 1)."""

    @classmethod
    def of(cls, units: Iterable[Sequence[float | None]]) -> Self:
        """One unit is what all judges gave one thing, null where one gave nothing."""
        kept: list[float] = []
        apart, found, alone = 0.0, 0, 0
        for unit in units:
            given = [one for one in unit if one is not None]
            m = len(given)
            if m < 2:
                alone += m
                continue
            found += 1
            kept += given
            mean = math.fsum(given) / m
            # Over ordered pairs, twice m times the squared distances from the mean: nothing cancels.
            apart += 2 * m * math.fsum((one - mean) ** 2 for one in given) / (m - 1)
        total, squares = math.fsum(kept), math.fsum(one * one for one in kept)
        return cls(units=found, alone=alone, n=len(kept), total=total, squares=squares, apart=apart)


def alpha(total: VerdictAgreement | ScoreAgreement) -> float | None:
    """Krippendorff's alpha: 1 - observed / expected disagreement. 1: they agree; 0: as if by chance; below 0:
    they contradict each other. Scores count as interval data, verdicts as nominal.

    None where fewer than two units have two values (of one alone it would be 0 whatever they said), and where
    all values are the same: then it is not known how far judges would be apart by chance.
    Source: Krippendorff 2011, sections C (nominal) and D (interval).
    """
    n = total.n
    if total.units < 2:
        return None
    if isinstance(total, VerdictAgreement):
        expected = (n * n - sum(k * k for k in total.counts.values())) / (n - 1)
        least = 0.0
    else:
        expected = 2 * (n * total.squares - total.total**2) / (n - 1)
        least = _SAME * max(1.0, total.squares)  # the rounding of that difference
    return 1.0 - total.apart / expected if expected > least else None
