"""The arithmetic behind a ratio, worked by hand."""

from __future__ import annotations

import pytest

from benchmarks.compare import Compared, Timed, alternate, fastest, ratio


def test_the_ratio_is_of_medians_and_the_spread_of_neighbours() -> None:
    """A burst of other work slows one neighbour pair and must not become the figure.

    ours 10 40 20 (median 20) against peer 5 8 10 (median 8): 20 / 8 = 2.5; the pairs are 2, 5, 2.
    """
    found = ratio([10.0, 40.0, 20.0], [5.0, 8.0, 10.0])
    assert (found.median, found.low, found.high) == (2.5, 2.0, 5.0)


def test_series_that_are_not_pairs_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="2 runs against 1"):
        ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="not pairs"):
        ratio([], [])


def test_rates_and_not_times_are_compared() -> None:
    """Sides that stop by themselves draw different numbers of tokens: 100 in 2 s against 90 in 3 s."""
    compared = Compared(ours=(Timed(tokens=100, seconds=2.0),), peer=(Timed(tokens=90, seconds=3.0),))
    assert compared.ratio.median == pytest.approx(50 / 30)
    assert (compared.our_rate, compared.peer_rate) == (50.0, 30.0)


def test_the_sides_take_turns() -> None:
    order: list[str] = []

    def side(name: str) -> Timed:
        order.append(name)
        return Timed(tokens=1, seconds=1.0)

    found = alternate(lambda: side("ours"), lambda: side("peer"), repeats=3, budget_s=60.0)
    assert order == ["ours", "peer"] * 3
    assert len(found.ours) == len(found.peer) == 3


def test_a_used_up_budget_ends_the_repeats_after_two_pairs() -> None:
    """One pair has no spread: two are made whatever they cost."""
    said: list[str] = []
    one = Timed(tokens=1, seconds=1.0)
    found = alternate(lambda: one, lambda: one, repeats=5, budget_s=0.0, say=said.append)
    assert len(found.ours) == 2
    assert any("2 of 5 repeats" in line for line in said)


def test_the_cheapest_of_those_as_fast_as_the_fastest_wins() -> None:
    """98 is within 3 % of 100 and comes first; without the tolerance the peer gets its very best."""
    rates = {"small": 90.0, "middle": 98.0, "large": 100.0}
    assert fastest(list(rates), rates.__getitem__, within=0.03) == ("middle", rates)
    assert fastest(list(rates), rates.__getitem__)[0] == "large"
