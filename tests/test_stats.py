"""Intervals against hand-worked values and scipy's; the mistakes they guard against stand with each."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from selfrefine import stats


def test_nothing_right_of_ten_is_not_certainly_zero() -> None:
    # By hand: z^2/(n + z^2) = 3.8415/13.8415 = 0.2775. The textbook p +- z*s would say [0, 0].
    # Half of 20: (10 + z^2/2)/(20 + z^2) +- z sqrt(20/4 + z^2/4)/(20 + z^2) = 0.5 +- 1.96 * 2.4413/23.8415.
    assert stats.wilson(10, 20) == pytest.approx((0.2993, 0.7007), abs=5e-5)
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
    assert got.method == "bootstrap-2000"


@pytest.mark.parametrize("n", [6, 37, 2_500])  # the last is drawn in pieces
def test_the_bootstrap_is_scipys_to_the_last_digit(n: int) -> None:
    """It is computed here because loading SciPy takes a second; recorded intervals must not change by it."""
    data = np.random.default_rng(n).random(n)
    found = scipy_stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=stats.RESAMPLES,
        batch=max(1, stats._CELLS // n),
        confidence_level=0.9,
        method="percentile",
        rng=stats.generator(5),
    ).confidence_interval
    assert stats._bootstrap(data, 5, 0.9) == (float(found.low), float(found.high))


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


# --- few and constant values claim nothing ------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "least"), [(0.9, 5), (0.95, 6), (0.98, 7), (1 - 0.05 / 3, 7), (0.96875, 6)]
)
def test_an_interval_needs_as_many_values_as_a_sign_test_needs_to_reject(level: float, least: int) -> None:
    # 0.90: 2/2^5 = 0.0625; 0.95: 2/2^6 = 0.031; 0.98: 2/2^7 = 0.0156; 0.96875: 2/2^6 exactly.
    assert stats.fewest(level) == least
    assert stats.mcnemar(0, least) <= 1 - level < stats.mcnemar(0, least - 1)


def test_two_tasks_with_the_same_gain_do_not_beat_anything() -> None:
    """The case found in use: a bootstrap interval [0.25, 0.25], and then "revision beats the draft"."""
    found = stats.paired_difference({"a": 0.5, "b": 0.25}, {"a": 0.75, "b": 0.5})
    assert (found.mean, found.lo, found.hi, found.n) == (0.25, None, None, 2)
    assert found.method == "none: 2 of 2 values usable, 6 needed"
    unlike = stats.paired_difference({"a": 0.5, "b": 0.25}, {"a": 0.75, "b": 0.6})
    assert unlike.lo is None  # [0.25, 0.35] is as wrong
    few = stats.interval([0.2, 0.4, 0.3])
    assert (few.lo, few.method) == (None, "none: 3 of 3 values usable, 6 needed")


def test_four_gains_among_two_hundred_tasks_are_few() -> None:
    """Trap: P(a resample holds none of them) = (196/200)^200 = 0.018 < 0.025, so the bootstrap leaves zero
    out; the exact test says 2/2^4 = 0.125."""
    before = {f"t{i}": 0.0 for i in range(200)}
    assert stats.paired_difference(before, before | dict.fromkeys(["t1", "t2", "t3", "t4"], 1.0)).lo is None
    six = stats.paired_difference(before, before | {f"t{i}": 1.0 for i in range(6)})
    assert six.lo is not None and six.lo > 0 and six.method == "paired-bootstrap-2000"


def test_equal_values_get_an_interval_of_what_was_not_seen() -> None:
    # 20 gains of 1: up to q = 1 - 0.025^(1/20) = 0.1684 of the tasks may be lost instead: 1 - 2q = 0.6631.
    up = stats.paired_difference({f"t{i}": 0.0 for i in range(20)}, {f"t{i}": 1.0 for i in range(20)})
    assert (up.lo, up.hi, up.method) == (pytest.approx(0.6631, abs=1e-4), 1.0, "paired-constant-exact")
    # 20 gains of 0.1, equal but for rounding: 0.1 - 0.1684 * 1.1 = -0.0853: they do not beat anything.
    small = stats.paired_difference(
        {f"t{i}": i / 32 for i in range(20)}, {f"t{i}": i / 32 + 0.1 for i in range(20)}
    )
    assert (small.lo, small.hi) == (pytest.approx(-0.0853, abs=1e-4), pytest.approx(0.2516, abs=1e-4))
    # 200 tasks of which none changed: q = 0.01827. "No difference at all" is not certain.
    same = stats.paired_difference(
        dict.fromkeys(map(str, range(200)), 0.5), dict.fromkeys(map(str, range(200)), 0.5)
    )
    assert (same.lo, same.hi) == (pytest.approx(-0.01827, abs=1e-5), pytest.approx(0.01827, abs=1e-5))
    # Scores do not go below 0: 0.4 - 0.1684 * 0.4 and 0.4 + 0.1684 * 0.6.
    graded = stats.interval([0.4] * 20)
    assert (graded.lo, graded.hi) == (pytest.approx(0.3326, abs=1e-4), pytest.approx(0.5010, abs=1e-4))


def test_a_corpus_figure_of_few_or_equal_changes_has_no_interval() -> None:
    share = lambda s: s[0] / s[1]  # noqa: E731
    before = {f"t{i}": [i % 3, 4.0] for i in range(30)}
    five = before | {f"t{i}": [3.0, 4.0] for i in range(5)}
    assert stats.compare_corpus(before, five, share).lo is None
    alike = {key: [hits + 1, 4.0] for key, (hits, _) in before.items()}  # every resample gains 1/4
    found = stats.compare_corpus(before, alike, share)
    assert (found.difference, found.lo, found.hi) == (pytest.approx(0.25), None, None)
    assert found.p_value == pytest.approx(1 / 10_001)  # that it is better is the test's to say
    assert stats.compare_corpus(before, five | {"t5": [3.0, 4.0]}, share).lo is not None


# --- paired tests ------------------------------------------------------------------------------------


def test_mcnemar_by_hand_and_against_a_published_value() -> None:
    assert stats.mcnemar(0, 0) == stats.mcnemar(0, 0, "greater") == stats.mcnemar(50, 50) == 1.0
    assert stats.mcnemar(0, 5, "greater") == pytest.approx(1 / 32)
    assert stats.mcnemar(1, 4, "greater") == pytest.approx((1 + 5) / 32)
    # R's exact2x2: mcnemar.exact(matrix(c(21, 9, 2, 12), 2)) gives p-value = 0.06543.
    assert stats.mcnemar(2, 9) == pytest.approx(0.06543, abs=5e-6)


CHANGES = [0.1, 0.2, -0.05, 0.3, 0.0, 0.07, -0.2, 0.15]


@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
def test_few_changes_are_permuted_completely(alternative: stats.Alternative) -> None:
    theirs = scipy_stats.permutation_test(
        (np.array(CHANGES),), np.mean, permutation_type="samples", alternative=alternative, n_resamples=np.inf
    )
    found, how = stats.permutation(CHANGES, 0, alternative)
    assert how == "permutation-exact"
    assert found == pytest.approx(theirs.pvalue)


def test_permutation_by_hand() -> None:
    # 0.1, 0.2 and 0.3 all up: one arrangement of eight is as large. With 0.1 down, (0.4) of
    # +++ 0.6, -++ 0.4, +-+ 0.2, ++- 0 … two are.
    assert stats.permutation([0.1, 0.2, 0.3], 0, "greater")[0] == 1 / 8
    assert stats.permutation([-0.1, 0.2, 0.3], 0, "greater")[0] == 2 / 8
    assert stats.permutation([0.1, 0.2, 0.3], 0)[0] == 2 / 8
    assert stats.permutation([0.0, 0.0], 0, "greater")[0] == 1.0


def test_the_observed_arrangement_is_as_large_as_itself_in_any_order_of_summing() -> None:
    """Trap: 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floating point; p would come out as 0."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        changes = rng.uniform(0.01, 0.3, 9).tolist()  # all up: exactly one arrangement of 512
        assert stats.permutation(changes, 0, "greater")[0] == 1 / 512


def test_many_changes_are_permuted_at_random_and_p_is_never_zero() -> None:
    up = [0.5] * 40
    found, how = stats.permutation(up, 0, "greater")
    assert how == "permutation-10000" and found == 1 / 10_001  # the +1: 0 would be a claim beyond the trials
    mixed = np.random.default_rng(3).normal(0.08, 0.5, 120).tolist()
    found, _ = stats.permutation(mixed, 1, "greater")
    theirs = scipy_stats.ttest_1samp(mixed, 0.0, alternative="greater").pvalue
    assert found == pytest.approx(theirs, abs=0.012)  # of a t-test on as many values; 3 standard errors
    assert stats.permutation(mixed, 1, "greater") == (found, how)
    assert stats.permutation(mixed, 2, "greater")[0] != found


def test_right_or_wrong_and_graded_scores_get_their_own_test() -> None:
    right = stats.compare({"a": 0.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": 1.0, "c": None})
    assert (right.test, right.n, right.ties, right.unscored) == ("mcnemar-exact", 2, 1, 1)
    assert (right.before, right.after, right.difference, right.p_value) == (0.5, 1.0, 0.5, 1.0)
    graded = stats.compare({"a": 0.0, "b": 0.25}, {"a": 1.0, "b": 0.5}, alternative="greater")
    assert (graded.test, graded.p_value) == ("permutation-exact", 0.25)
    nothing = stats.compare({"a": None}, {"a": 1.0})
    assert (nothing.p_value, nothing.test, nothing.n, nothing.unscored) == (None, "none", 0, 1)


# --- figures of a whole corpus -----------------------------------------------------------------------

WORDS = ["the", "a", "small", "old", "green", "dog", "cat", "house", "river", "sees", "finds", "and", "near"]


def translations(seed: int, n: int, noise: float) -> tuple[list[str], list[str]]:
    """References of 6 to 12 words, and a system that gets each word wrong with probability `noise`."""
    rng, own = np.random.default_rng(7), np.random.default_rng(seed)
    references = [" ".join(rng.choice(WORDS, rng.integers(6, 13))) for _ in range(n)]
    hypotheses = [
        " ".join(str(own.choice(WORDS)) if own.random() < noise else word for word in line.split())
        for line in references
    ]
    return references, hypotheses


def both_p_values(name: str) -> tuple[float, float, Any, Any]:
    """sacreBLEU's and ours, and the statistics of the two systems."""
    from sacrebleu.metrics import BLEU, CHRF, TER
    from sacrebleu.significance import PairedTest

    metric = {"bleu": BLEU, "chrf": CHRF, "ter": TER}[name]()
    references, one = translations(1, 60, 0.30)
    _, two = translations(2, 60, 0.27)
    tested = PairedTest([("one", one), ("two", two)], {name: metric}, [references], n_samples=stats.TRIALS)
    theirs = next(value for key, value in tested()[1].items() if key != "System")[1].p_value
    before, after = (
        np.array(metric._extract_corpus_statistics(side, [references]), dtype=float) for side in (one, two)
    )
    rng = np.random.default_rng(12345)  # sacreBLEU's default seed
    score = lambda sums: metric._compute_score_from_stats(list(sums)).score  # noqa: E731
    return theirs, stats.randomisation(before, after, score, rng), before, after


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_randomisation_gives_sacrebleus_p_value(name: str) -> None:
    """Trial for trial: the same generator and seed draw the same swaps."""
    theirs, ours, _, _ = both_p_values(name)
    assert 0.01 < theirs < 0.9 and ours == theirs


def test_where_trials_tie_with_what_was_observed_ours_counts_them_and_sacrebleu_does_not() -> None:
    """TER counts whole edits, so ties are common; left out they make p too small."""
    theirs, ours, before, after = both_p_values("ter")
    change = after[:, 0] - before[:, 0]  # edits; the references' lengths are the same whoever is swapped
    swaps = np.random.default_rng(12345).integers(2, size=(stats.TRIALS, len(change)), dtype=bool)
    shuffled, observed = np.abs(np.where(swaps, 1, -1) @ change), abs(change.sum())
    assert theirs == (np.sum(shuffled > observed) + 1) / (stats.TRIALS + 1)
    assert ours == (np.sum(shuffled >= observed) + 1) / (stats.TRIALS + 1)
    assert theirs < ours


def test_a_system_is_not_significantly_better_than_itself() -> None:
    """Trap: counting only what is *larger* than the observed difference gives equal systems p = 0.0001."""
    stats_NS = np.array([[3.0, 4.0], [2.0, 5.0], [1.0, 1.0]])
    for alternative in ("greater", "two-sided"):
        rng = np.random.default_rng(0)
        assert stats.randomisation(stats_NS, stats_NS, lambda s: s[0] / s[1], rng, alternative) == 1.0


def test_a_corpus_figure_is_compared_and_not_the_mean_of_its_sentences() -> None:
    # Hits of words, summed: (1 + 9)/(2 + 28) = 0.333 before, (2 + 7)/(2 + 28) = 0.3 after. The mean of both
    # sentences' shares would have risen: 0.411 -> 0.625.
    before, after = {"a": [1, 2], "b": [9, 28], "c": None}, {"a": [2, 2], "b": [7, 28], "d": [1, 1]}
    found = stats.compare_corpus(before, after, lambda s: s[0] / s[1], alternative="greater")
    assert (found.before, found.after) == pytest.approx((10 / 30, 9 / 30))
    assert found.difference == pytest.approx(-1 / 30) and found.test == "randomisation-10000"
    assert (found.n, found.ties, found.unscored) == (2, 0, 2)
    # Swaps of a and b: as they are -1/30; a swapped -3/30; b swapped 3/30; both 1/30. Three of four reach it.
    assert found.p_value == pytest.approx(0.75, abs=0.02)
    assert stats.compare_corpus({"a": None}, {"a": [1.0]}, lambda s: s[0]).n == 0


# --- what can be shown -------------------------------------------------------------------------------


def test_what_a_hundred_tasks_can_show() -> None:
    # Right/wrong from 0: every change is a gain, d = g; sqrt(100) g = 1.6449 sqrt(g) + 0.8416 sqrt(g - g^2)
    # at g = 0.0594: 0.594 = 1.6449 * 0.2437 + 0.8416 * 0.2364 = 0.4009 + 0.1990.
    assert stats.smallest_detectable([0.0] * 100) == pytest.approx(0.0600, abs=1e-3)
    half = stats.smallest_detectable([0.0, 1.0] * 50)
    # From 0.5, d = 0.5: 10 g = 1.6449 * 0.7071 + 0.8416 * sqrt(0.5 - g^2), at g = 0.174: 1.163 + 0.577.
    assert half == pytest.approx(0.174, abs=2e-3)
    assert stats.smallest_detectable([0.0, 1.0] * 200) == pytest.approx(half / 2, rel=0.03)
    # Graded: (1.6449 + 0.8416) * sqrt(2 / 100) * s.
    graded = [0.2, 0.6] * 50
    assert stats.smallest_detectable(graded) == pytest.approx(
        2.4865 * 0.14142 * np.std(graded, ddof=1), abs=1e-4
    )


def test_what_cannot_be_shown_has_no_figure() -> None:
    assert stats.smallest_detectable([]) is None
    assert stats.smallest_detectable([1.0] * 9 + [0.0]) is None  # only 0.1 is left to gain
    assert stats.smallest_detectable([0.5, 0.5]) is None  # nothing varies: nothing is known
    assert stats.smallest_detectable([0.3]) is None


def test_a_gain_of_that_size_is_accepted_four_times_in_five() -> None:
    """Simulated with the very test of the gate. Exact McNemar is a little careful, so a little below 0.8."""
    n, p, alpha = 200, 0.3, 0.05 / 3
    gain = stats.smallest_detectable([1.0] * 60 + [0.0] * 140, alpha)
    assert gain is not None
    rng = np.random.default_rng(0)
    before, after = rng.random((1500, n)) < p, rng.random((1500, n)) < p + gain
    better, worse = (after & ~before).sum(axis=1), (before & ~after).sum(axis=1)
    accepted = [stats.mcnemar(w, b, "greater") <= alpha for w, b in zip(worse, better, strict=True)]
    assert 0.72 < np.mean(accepted) < 0.83


def test_rank_correlation_by_hand_and_undefined_where_nothing_varies() -> None:
    # Ranks 1, 2.5, 2.5, 4 and 3, 1.5, 1.5, 4: covariance 1.5 over a variance of 4.5.
    assert stats.spearman([1, 2, 2, 4], [3, 1, 1, 9]) == pytest.approx(1 / 3)
    assert stats.spearman([1, 1, 1], [1, 2, 3]) is None and stats.spearman([], []) is None


@pytest.mark.parametrize("argv", [["runs", "ls"], ["tasks", "TASKS"], ["reward", "-r", "exact", "ROWS"]])
def test_what_decides_nothing_does_not_wait_for_scipy(argv: list[str], tmp_path: Path) -> None:
    row = b'{"id": "a.s0", "task": {"id": "a", "prompt": [], "references": ["2"]}, "text": "2"}\n'
    (tmp_path / "rows.jsonl").write_bytes(row)
    (tmp_path / "tasks.jsonl").write_bytes(b'{"prompt": "1 + 1", "reference": "2"}\n')
    names = {"ROWS": "rows.jsonl", "TASKS": "tasks.jsonl"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "selfrefine", *(names.get(word, word) for word in argv)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert "selfrefine.errors" in done.stderr and "scipy" not in done.stderr
