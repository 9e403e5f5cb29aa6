"""Agreement and calibration against published and hand-worked values; what each mistake would give."""

from __future__ import annotations

import itertools
import math
import random

import msgspec
import pytest

from selfrefine import agreement
from selfrefine.agreement import Calibration, ScoreAgreement, VerdictAgreement, alpha, calibration

# Krippendorff 2011, section C: four observers, twelve units. He reports 0.743 (nominal), 0.849 (interval).
OBSERVERS = ("1233214 12...", "1233224 125.3", ".333234 2251.", "1233244 1251.")
UNITS = list(zip(*(row.replace(" ", "") for row in OBSERVERS), strict=True))


def names() -> list[list[str | None]]:
    return [[None if one == "." else one for one in unit] for unit in UNITS]


def numbers() -> list[list[float | None]]:
    return [[None if one == "." else float(one) for one in unit] for unit in UNITS]


def test_alpha_of_krippendorffs_own_example() -> None:
    """By hand, nominal: pairs differ in unit 2 (6 / 3), 6 (12 / 3) and 8 (6 / 3), together 8; of 40 values 9,
    13, 10, 5, 3 are 1 to 5: 1 - 8 / ((1600 - 81 - 169 - 100 - 25 - 9) / 39). The twelfth unit has one value:
    were it counted, there would be 41."""
    named, numbered = VerdictAgreement.of(names()), ScoreAgreement.of(numbers())
    assert (named.n, named.units, named.alone, named.apart) == (40, 11, 1, pytest.approx(8.0))
    assert round(alpha(named) or 0.0, 3) == 0.743
    assert round(alpha(numbered) or 0.0, 3) == 0.849


def test_alpha_by_its_definition_over_all_pairs() -> None:
    """Mean squared distance within units, each value weighted alike, over that of all pairs there are."""
    draw = random.Random(4)
    units = [[draw.choice([None, draw.random()]) for _ in range(4)] for _ in range(50)]
    kept = [[one for one in unit if one is not None] for unit in units]
    kept = [unit for unit in kept if len(unit) > 1]
    whole = [one for unit in kept for one in unit]
    within = [
        sum((x - y) ** 2 for x, y in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in kept
    ]
    apart = [(x - y) ** 2 for x, y in itertools.permutations(whole, 2)]
    expected = 1 - (sum(within) / len(whole)) / (sum(apart) / len(apart))
    assert alpha(ScoreAgreement.of(units)) == pytest.approx(expected)


def test_two_judges_who_agree_contradict_or_draw_lots() -> None:
    """Contradicting: n = 8, four of each, all 4 pairs differ: 1 - 8 / ((64 - 32) / 7) = -0.75. All four
    combinations once: 1 - 4 / ((64 - 32) / 7) = 0.125, above 0 because eight values are few."""
    verdicts = [["ok", "ok"], ["revise", "revise"]] * 2
    assert alpha(VerdictAgreement.of(verdicts)) == 1.0
    assert alpha(VerdictAgreement.of([["ok", "revise"]] * 4)) == pytest.approx(-0.75)
    lots = list(itertools.product(["ok", "revise"], repeat=2))
    assert alpha(VerdictAgreement.of(lots)) == pytest.approx(0.125)


def test_judges_who_never_vary_agree_in_nothing_that_could_be_known() -> None:
    """`ok` for everything is 100 % agreement, and says nothing: a null, not 1. 0.2 has no exact binary form:
    the rounding of a thousand of them must not look like a spread."""
    assert alpha(VerdictAgreement.of([["ok", "ok"]] * 9)) is None
    assert alpha(ScoreAgreement.of([[0.2, 0.2, 0.2]] * 1_000)) is None
    assert alpha(ScoreAgreement.of([[0.2, 0.2], [0.2, 0.2001]])) is not None
    assert alpha(VerdictAgreement.of([["ok", "revise"]])) is None  # one unit: 0, whatever it says
    assert alpha(VerdictAgreement.of([["ok", None], [None, "revise"]])) is None
    assert alpha(VerdictAgreement()) is None


PAIRS = [(0.9, True), (0.8, False), (0.35, True), (0.3, False), (0.05, False)]


def test_calibration_by_hand() -> None:
    """Bins (0.8, 0.9]: 0.9 right; (0.7, 0.8]: 0.8 wrong; (0.3, 0.4]: 0.35 right; (0.2, 0.3]: 0.3 wrong;
    (0, 0.1]: 0.05 wrong. ECE = (0.1 + 0.8 + 0.65 + 0.3 + 0.05) / 5 = 0.38.
    AUC: 0.9 beats three wrong ones, 0.35 two of three: 5/6."""
    found = calibration(Calibration.of(PAIRS))
    assert (found.n, found.right_rate, found.mean_p) == (5, 0.4, pytest.approx(2.4 / 5))
    assert (found.ece, found.auc, found.tied) == (pytest.approx(0.38), pytest.approx(5 / 6), 0.0)
    assert [one.n for one in found.bins] == [1, 0, 1, 1, 0, 0, 0, 1, 1, 0]
    assert found.bins[1].mean_p is None and found.bins[1].right_rate is None  # empty is not 0
    assert (found.bins[8].lo, found.bins[8].hi, found.bins[8].right_rate) == (0.8, 0.9, 1.0)
    assert agreement.ece(PAIRS) == found.ece and agreement.auc(PAIRS) == found.auc


def test_rows_of_one_bin_are_averaged_before_they_are_compared() -> None:
    """Four rows said 0.75, three are right: calibrated. Row by row the distance would be 0.375."""
    assert agreement.ece([(0.75, True)] * 3 + [(0.75, False)]) == pytest.approx(0.0)
    # The ends belong to the first and the last bin, and a grade on an edge to the bin below it.
    found = calibration(Calibration.of([(0.0, False), (0.1, False), (0.2, False), (0.6, True), (1.0, True)]))
    assert [one.n for one in found.bins] == [2, 1, 0, 0, 0, 1, 0, 0, 0, 1]


def test_a_tie_is_one_half() -> None:
    """A judge that says the same of all is no better than a coin. Trap: `>=` would make it 1, `>` 0."""
    same = [(0.5, True), (0.5, False), (0.5, False)]
    assert agreement.auc(same) == 0.5
    found = calibration(Calibration.of(same))
    assert (found.auc, found.tied) == (0.5, 1.0)
    # By Mann-Whitney: right 2, 3, 3 against wrong 1, 3: wins 1+0 1+.5 1+.5 = 4 of 6.
    scores = [(2.0, True), (3.0, True), (3.0, True), (1.0, False), (3.0, False)]
    assert agreement.auc(scores) == pytest.approx(4 / 6)


def test_auc_is_that_of_scipys_u() -> None:
    from scipy.stats import mannwhitneyu

    draw = random.Random(0)
    pairs = [(draw.randrange(20) / 20, draw.random() < 0.4) for _ in range(300)]
    right, wrong = ([p for p, was in pairs if was is side] for side in (True, False))
    expected = mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong))
    assert agreement.auc(pairs) == pytest.approx(expected)
    assert calibration(Calibration.of(pairs)).auc == pytest.approx(expected)  # twentieths are told apart


def test_what_is_not_known_is_left_out_and_one_class_has_no_auc() -> None:
    found = calibration(Calibration.of([(0.9, True), (None, True), (0.2, None), (0.7, True)]))
    assert (found.n, found.unknown, found.right_rate) == (2, 2, 1.0)
    assert found.auc is None and found.tied is None
    assert found.ece == pytest.approx((0.1 + 0.3) / 2)
    nothing = calibration(Calibration())
    assert (nothing.n, nothing.right_rate, nothing.mean_p, nothing.ece, nothing.auc) == (0, *[None] * 4)
    assert agreement.auc([]) is None and agreement.ece([]) is None


@pytest.mark.parametrize("p", [1.01, -0.1, math.nan])
def test_what_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="is not a probability"):
        Calibration.of([(p, True)])


def test_windows_add_up_to_the_whole_after_a_way_through_json() -> None:
    """A stage keeps its sums as JSON beside each unit, and a resumed one reads them back."""
    draw = random.Random(1)
    pairs = [(draw.random(), draw.random() < 0.5) for _ in range(5_000)]
    total = Calibration()
    for start in range(0, len(pairs), 37):
        part = Calibration.of(pairs[start : start + 37])
        total += msgspec.json.decode(msgspec.json.encode(part), type=Calibration)
    whole, exact = calibration(total), agreement.auc(pairs)
    assert whole.ece == pytest.approx(agreement.ece(pairs))
    assert whole.auc is not None and whole.tied is not None and exact is not None
    assert 0 < abs(whole.auc - exact) <= whole.tied / 2 < 0.001  # known to half the share that ties
    assert len(total.right) <= agreement.STEPS + 1  # constant, however long the stream
    assert total.add(0.5, True).add(None, True).unknown == 1

    units = names()
    halves = VerdictAgreement.of(units[:5]) + VerdictAgreement.of(units[5:])
    assert alpha(halves) == pytest.approx(alpha(VerdictAgreement.of(units)))
    scored = ScoreAgreement.of(numbers()[:5]) + ScoreAgreement.of(numbers()[5:])
    assert alpha(scored) == pytest.approx(alpha(ScoreAgreement.of(numbers())))
