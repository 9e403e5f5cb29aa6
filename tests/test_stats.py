"""Intervals against hand-worked values and scipy's; the mistakes they guard against stand with each."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from selfrefine import stats


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (10, 20), (93, 400), (19, 20), (7, 7)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_agrees_with_scipy(successes: int, n: int, level: float) -> None:
    theirs = scipy_stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert stats.wilson(successes, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_nothing_right_of_ten_is_not_certainly_zero() -> None:
    # By hand: z^2/(n + z^2) = 3.8415/13.8415 = 0.2775. The textbook p +- z*s would say [0, 0].
    assert stats.wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=5e-5))
    assert stats.wilson(10, 10) == (pytest.approx(1 - 0.2775, abs=5e-5), 1.0)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="wilson needs"):
        stats.wilson(successes, n)


def test_right_or_wrong_goes_to_wilson_and_unscored_is_neither() -> None:
    # Trap: an unscored row counted as 0 would make this 1/4.
    got = stats.interval([1.0, None, 0.0, None])
    assert (got.mean, got.n, got.unscored, got.method) == (0.5, 2, 2, "wilson")
    assert (got.lo, got.hi) == stats.wilson(1, 2)


def test_graded_values_are_bootstrapped_and_agree_with_the_normal_interval() -> None:
    values = [float(x) for x in np.linspace(0.1, 0.7, 200)]
    got = stats.interval(values, seed=3)
    assert got.mean == pytest.approx(0.4)
    # Standard error by hand: uniform of width 0.6 has s = 0.6/sqrt(12) = 0.1732; /sqrt(200) = 0.01225.
    assert got.lo == pytest.approx(0.4 - 1.96 * 0.01225, abs=0.002)
    assert got.hi == pytest.approx(0.4 + 1.96 * 0.01225, abs=0.002)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (got.lo, got.hi) == pytest.approx((theirs.low, theirs.high), abs=0.003)
    assert got.method == "bootstrap-2000"


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = [i * i / 1600 for i in range(40)]  # few values would make the percentiles coincide
    assert stats.interval(values, seed=1) == stats.interval(values, seed=1)
    assert stats.interval(values, seed=1).lo != stats.interval(values, seed=2).lo


def test_many_values_are_resampled_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [float(x) for x in np.linspace(0.0, 0.9, 50)]
    whole = stats.interval(values)
    monkeypatch.setattr(stats, "_CELLS", 333)
    assert stats.interval(values) == whole  # and the pieces are the same draws


def test_no_value_and_one_graded_value_claim_no_interval() -> None:
    nothing = stats.interval([None, None])
    assert (nothing.mean, nothing.lo, nothing.n, nothing.unscored) == (None, None, 0, 2)
    one = stats.interval([0.4])  # its resamples are all 0.4: a zero-width interval would be a lie
    assert (one.mean, one.lo, one.hi, one.n) == (0.4, None, None, 1)
    assert stats.interval([1.0]).lo == pytest.approx(0.2065, abs=5e-5)  # one success: 1/(1 + z^2)


def test_the_paired_difference_removes_the_tasks_own_difficulty() -> None:
    # Hard and easy tasks from 0 to 0.9; every one gained 0.04 to 0.06. Unpaired, the spread hides it.
    before = {f"t{i}": i / 100 for i in range(91)}
    after = {key: value + (0.04 if i % 2 else 0.06) for i, (key, value) in enumerate(before.items())}
    got = stats.paired_difference(before, after)
    assert got.n == 91
    assert got.mean == pytest.approx((46 * 0.06 + 45 * 0.04) / 91)
    assert got.lo is not None and got.hi is not None and 0.047 < got.lo < got.hi < 0.053
    old, new = stats.interval(list(before.values())), stats.interval(list(after.values()))
    assert old.hi is not None and new.lo is not None and old.hi > new.lo


def test_a_pair_needs_both_scores_and_the_rest_is_counted() -> None:
    # Trap: a missing "after" read as 0 would turn a gain of 0.25 into a loss.
    before = {"a": 0.5, "b": 0.5, "c": 1.0, "d": None}
    after = {"a": 0.75, "b": 0.75, "c": None, "e": 1.0}
    got = stats.paired_difference(before, after)
    assert (got.mean, got.n, got.dropped) == (0.25, 2, 3)


def test_the_order_of_the_rows_does_not_change_the_interval() -> None:
    before = {f"t{i}": 0.0 for i in range(30)}
    after = {f"t{i}": i % 7 / 7 for i in range(30)}
    shuffled = dict(reversed(after.items()))
    assert stats.paired_difference(before, after, seed=5) == stats.paired_difference(before, shuffled, seed=5)


def test_no_pair_and_a_single_pair_claim_no_interval() -> None:
    assert stats.paired_difference({"a": None}, {"b": 1.0}).mean is None
    one = stats.paired_difference({"a": 0.0}, {"a": 1.0})
    assert (one.mean, one.lo, one.hi, one.n) == (1.0, None, None, 1)


def test_what_a_hundred_tasks_can_show() -> None:
    # By hand: (1.9600 + 0.8416) * sqrt(2 * 0.25 / 100) = 2.8016 * 0.070711 = 0.1981.
    assert stats.smallest_detectable(100) == pytest.approx(0.1981, abs=5e-5)
    assert stats.smallest_detectable(400) == pytest.approx(0.1981 / 2, abs=5e-5)
    assert stats.smallest_detectable(100, p=0.1) == pytest.approx(0.1189, abs=5e-5)
    assert stats.smallest_detectable(1) == 1.0
    with pytest.raises(ValueError, match="0 tasks"):
        stats.smallest_detectable(0)


def test_a_change_of_that_size_is_seen_four_times_in_five() -> None:
    change = stats.smallest_detectable(100)
    rng = np.random.default_rng(0)
    p1, p2 = 0.5 - change / 2, 0.5 + change / 2
    gains = (rng.binomial(100, p2, 20_000) - rng.binomial(100, p1, 20_000)) / 100
    threshold = 1.96 * (2 * 0.25 / 100) ** 0.5
    assert np.mean(gains > threshold) == pytest.approx(0.8, abs=0.04)
