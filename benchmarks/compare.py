"""Two sides of one job, timed in turn, and what their times say.

The machine's speed drifts by the minute. Ratios of runs that stand next to each other do not drift with it,
so the sides alternate and the spread is that of neighbours.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence

from msgspec import Struct


class Timed(Struct, frozen=True, kw_only=True):
    """One run of one side: useful tokens and the seconds they took."""

    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


class Ratio(Struct, frozen=True, kw_only=True):
    """How many times as fast the first side is: of the medians, and of the neighbours apart the most."""

    median: float
    low: float
    high: float


class Compared(Struct, frozen=True, kw_only=True):
    """All runs of both sides, in the order they were made: ours[i] and peer[i] are neighbours."""

    ours: tuple[Timed, ...]
    peer: tuple[Timed, ...]

    @property
    def ratio(self) -> Ratio:
        return ratio([run.rate for run in self.ours], [run.rate for run in self.peer])

    @property
    def our_rate(self) -> float:
        return statistics.median(run.rate for run in self.ours)

    @property
    def peer_rate(self) -> float:
        return statistics.median(run.rate for run in self.peer)


Side = Callable[[], Timed]


def ratio(ours: Sequence[float], peer: Sequence[float]) -> Ratio:
    """Of two series of rates (the more the better), paired by position. Raises: ValueError if not paired."""
    if len(ours) != len(peer) or not ours:
        raise ValueError(f"{len(ours)} runs against {len(peer)}: not pairs")
    pairs = [a / b for a, b in zip(ours, peer, strict=True)]
    return Ratio(median=statistics.median(ours) / statistics.median(peer), low=min(pairs), high=max(pairs))


def alternate(
    ours: Side, peer: Side, repeats: int, budget_s: float, say: Callable[[str], None] = lambda line: None
) -> Compared:
    """ours, peer, ours, peer, …: `repeats` pairs, fewer (but two at least) if another would pass `budget_s`.

    The caller has warmed both sides up. Garbage is collected before a run and not during it.
    """
    first: list[Timed] = []
    second: list[Timed] = []
    begun = time.perf_counter()
    while len(first) < repeats:
        spent = time.perf_counter() - begun
        if len(first) > 1 and spent * (len(first) + 1) / len(first) > budget_s:
            say(f"{len(first)} of {repeats} repeats in {spent:.0f} s; another would pass {budget_s:.0f} s")
            break
        for side, runs in ((ours, first), (peer, second)):
            runs.append(_quietly(side))
        say(f"pair {len(first)}: {first[-1].rate:.0f} against {second[-1].rate:.0f} tokens/s")
    return Compared(ours=tuple(first), peer=tuple(second))


def _quietly(side: Side) -> Timed:
    gc.collect()
    gc.disable()
    try:
        return side()
    finally:
        gc.enable()


def fastest(
    choices: Sequence[str], run: Callable[[str], float], within: float = 0.0
) -> tuple[str, dict[str, float]]:
    """The choice with the highest rate, and all rates; none where there is no choice.

    The first of those at most `within` (a share) slower than the fastest: callers list the cheaper first.
    """
    if len(choices) == 1:
        return choices[0], {}
    rates = {choice: run(choice) for choice in choices}
    top = max(rates.values())
    return next(choice for choice in choices if rates[choice] >= top * (1.0 - within)), rates
