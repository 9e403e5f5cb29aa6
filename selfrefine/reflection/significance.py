"""Whether slices of tasks are weaker than the rest, where many are looked at: one test for each, corrected.

SciPy is imported inside functions: it takes seven times as long to load as NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """q-values: of all those called significant at q, a share of at most q is expected to be so by chance.

    q of the k-th smallest of m is min over j >= k of p_j * m / j; in the order of `p_values`.
    Source: Benjamini & Hochberg 1995, "Controlling the false discovery rate".
    """
    from scipy.stats import false_discovery_control

    return [float(q) for q in false_discovery_control(p_values)] if len(p_values) else []


def fewer(hits: Sequence[int], drawn: Sequence[int], marked: int, total: int) -> list[float]:
    """One-sided p of Fisher's exact test: `hits` of `drawn` are marked, where `marked` of all `total` are.

    One p for each pair of hits and drawn, that so few or fewer are marked if the drawn ones are any of them.
    Source: Fisher 1935, "The design of experiments".
    """
    from scipy.stats import hypergeom

    if not len(hits):
        return []
    found = hypergeom.cdf(np.asarray(hits), total, marked, np.asarray(drawn))
    return [min(1.0, float(p)) for p in found]  # rounding can bring it over 1
