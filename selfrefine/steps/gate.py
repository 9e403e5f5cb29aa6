"""The step `gate`: is the candidate better than the accepted policy on the held-out gate tasks?

A plain comparison of means: whatever is measured better is kept. The paired difference and its interval are
reported beside it, so that a reader sees how much that is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from selfrefine.records import GateDecision
from selfrefine.stats import Difference, paired_difference


def decide(
    before: Mapping[str, float | None],
    after: Mapping[str, float | None],
    mode: Literal["better", "off"],
    seed: int,
) -> GateDecision:
    """`before` and `after`: task id to reward under the accepted policy and the candidate, null if unscored.

    Only tasks scored under both count. mode "off" keeps every candidate.
    """
    pairs = {k: (b, a) for k, b in before.items() if b is not None and (a := after.get(k)) is not None}
    if not pairs:
        return GateDecision(
            accepted=mode == "off",
            before=None,
            after=None,
            n=0,
            reason="no gate task was scored under both policies",
        )
    mean_before = sum(b for b, _ in pairs.values()) / len(pairs)
    mean_after = sum(a for _, a in pairs.values()) / len(pairs)
    difference = paired_difference(before, after, seed=seed)
    better = mean_after > mean_before
    verdict = "kept" if better or mode == "off" else "rolled back"
    how = "better" if better else "not better"
    if mode == "off" and not better:
        how += ", but the gate is off"
    return GateDecision(
        accepted=better or mode == "off",
        before=mean_before,
        after=mean_after,
        n=len(pairs),
        reason=(
            f"{verdict}: {mean_before:.3f} → {mean_after:.3f} on {len(pairs)} gate tasks "
            f"({_in_words(difference)}), {how}"
        ),
    )


def _in_words(difference: Difference) -> str:
    if difference.mean is None or difference.lo is None or difference.hi is None:
        return "no paired difference"
    return f"paired difference {difference.mean:+.3f} [{difference.lo:+.3f}, {difference.hi:+.3f}]"
