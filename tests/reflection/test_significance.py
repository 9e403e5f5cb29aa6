"""The test of a slice, and the correction for many: by hand, and beside SciPy."""

from __future__ import annotations

import pytest
from scipy import stats as scipy_stats

from selfrefine.reflection.significance import benjamini_hochberg, fewer


def test_significance_is_corrected_for_all_that_were_looked_at() -> None:
    # By hand, m = 4: sorted .005 .01 .03 .04 times 4/k: .02 .02 .04 .04.
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    # Trap: .02 * 2 = .04 alone would be worse than the larger p beside it, .021 * 2 / 2.
    assert benjamini_hochberg([0.02, 0.021]) == pytest.approx([0.021, 0.021])
    assert benjamini_hochberg([]) == []


def test_fishers_exact_test_by_hand_and_by_scipy() -> None:
    # None of 2 drawn marked, where 2 of 4 are: 1 of C(4, 2) = 6 draws. At most one: 5 of 6.
    assert fewer([0, 1, 2], [2, 2, 2], 2, 4) == pytest.approx([1 / 6, 5 / 6, 1.0])
    table = [[3, 37], [160, 200]]  # right and wrong, inside and outside
    theirs = scipy_stats.fisher_exact(table, alternative="less").pvalue
    assert fewer([3], [40], 163, 400) == pytest.approx([theirs])
    assert fewer([], [], 3, 9) == []
