"""The step `gate`: is the candidate better than the accepted policy on the held-out gate tasks?

Three outcomes. Reject, when the candidate is not better or a guard vetoes: back to the accepted policy.
Accept, when it is better and luck is a poor explanation. Undecided between the two: training goes on from the
candidate, and the accepted policy stays what the next candidates are compared with, what is rolled back to
and what the run ends with; so small gains add up until they show, and none is claimed before.

    significant   accept when the one-sided p-value is at most the round's alpha
    strict        besides, the whole interval at level 1 - alpha lies above zero (its lower tail: alpha / 2),
                  and none of the guards that may veto so much as warns
    off           keep everything; the figures are recorded all the same

A run looks R times, so each look may err with alpha / R only (Bonferroni: valid whatever the looks have to do
with one another). R is what the run was made with and is frozen in its manifest: a resumed run spends what
an uninterrupted one does. The next R rounds of a run that is extended spend half of that each, the R after
them a quarter: the whole stays below 2 alpha however often it is extended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec.structs import asdict

from selfrefine.runfolder.summaries import SAID, GateDecision, Guard
from selfrefine.stats import Comparison, smallest_detectable
from selfrefine.words import count

Mode = Literal["strict", "significant", "off"]
VETOING = frozenset({"forgetting", "perplexity", "gold"})
"""Guards that may veto, and in strict mode may not even warn."""


def spends(alpha: float, k: int, planned: int) -> float:
    """The share of `alpha` that round k >= 1 of a run made for `planned` rounds may spend."""
    rounds = max(1, planned)
    return alpha / rounds / 2.0 ** ((k - 1) // rounds)


def decide(
    found: Comparison, mode: Mode, alpha: float, guards: Sequence[Guard] = (), looks: int = 0
) -> GateDecision:
    """`found`: candidate against accepted policy, p-value one-sided; `alpha`: what this round may spend."""
    outcome, why = _outcome(found, mode, alpha, guards)
    return GateDecision(
        outcome=outcome,
        accepted=outcome == "accept",
        alpha=None if mode == "off" else alpha,
        **asdict(found),
        looks=looks,
        reason=f"{SAID[outcome]}: {_in_words(found)}{why}",
    )


def _outcome(
    found: Comparison, mode: Mode, alpha: float, guards: Sequence[Guard]
) -> tuple[Literal["accept", "undecided", "reject"], str]:
    """The outcome and the end of its sentence."""
    if mode == "off":
        better = found.difference is not None and found.difference > 0
        return "accept", ", the gate is off" if better or not found.n else ", not better, but the gate is off"
    if found.difference is None or found.p_value is None:
        return "reject", ""
    if vetoes := [guard.reason for guard in guards if guard.state == "veto"]:
        return "reject", f"; vetoed: {'; '.join(filter(None, vetoes))}"
    if found.difference <= 0:
        return "reject", ", not better"
    if found.p_value > alpha:
        return "undecided", f", better, but p is above {alpha:.4f}: training continues from this candidate"
    if mode == "strict":
        interval = f"{100 * (1 - alpha):.1f} % interval"
        if found.lo is None:
            return "undecided", f", better, but too few tasks changed for a {interval} (strict)"
        if found.lo <= 0:
            return "undecided", f", better, but the {interval} includes zero (strict)"
        if warned := [g.reason for g in guards if g.state == "warn" and g.name.split()[0] in VETOING]:
            return "undecided", f", better, but with a warning (strict): {'; '.join(filter(None, warned))}"
    return "accept", f", better (p at most {alpha:.4f})"


def _in_words(found: Comparison) -> str:
    if found.before is None or found.after is None or found.difference is None or found.p_value is None:
        return "no gate task was scored under both policies"
    known = found.lo is not None and found.hi is not None
    level = f"{100 * found.level:.1f}".removesuffix(".0")
    between = f", {level} % interval [{found.lo:+.3f}, {found.hi:+.3f}]" if known else ""
    p_value = "p < 0.0001" if found.p_value < 1e-4 else f"p {found.p_value:.4f}"
    return (
        f"{found.before:.3f} → {found.after:.3f} on {count(found.n, 'gate task')} "
        f"(paired difference {found.difference:+.3f}{between}, {p_value})"
    )


def error_after(looks: int, n: int, alpha: float) -> float:
    """How far off the mean of n gate tasks may be after so many looks, except with probability `alpha`.

    Each look tells the training one of three words, so what was trained is one of at most 3^looks policies:
    Hoeffding's bound for one of them, times their number. It assumes the worst, words used to fit the gate.
    Source: Dwork et al. 2015, "The reusable holdout" (description length).
    """
    return math.sqrt((looks * math.log(3) + math.log(1 / alpha)) / (2 * n))


def worn(looks: int, n: int, alpha: float, limit: float) -> str | None:
    """A warning once the gate tasks have been used too often to be trusted."""
    if not n or not looks or (error := error_after(looks, n, alpha)) <= limit:
        return None
    used = "once" if looks == 1 else f"{looks:,} times"
    return (
        f"the {n:,} gate tasks have decided {used}, and what is kept because of them fits them a little "
        f"better each time: their figure may by now be up to {error:.2f} too high (gate.wear warns from "
        f"{limit:g}). Trust the test split, which decides nothing; in another run, more gate tasks wear less"
    )


def opening(
    values: Sequence[float | None], mode: Mode, alpha: float, planned: int, corpus: str | None = None
) -> str | None:
    """What the gate will be able to show, given the starting policy's scores; None where it is off.

    Strict needs an interval above zero, whose lower tail is half the round's alpha. `corpus`: the measure
    whose figure of all answers together is compared, which no spread of the tasks' own scores foretells.
    """
    scored = [value for value in values if value is not None]
    if mode == "off" or not scored:
        return None
    each = spends(alpha, 1, planned)
    least = smallest_detectable(scored, each / 2 if mode == "strict" else each)
    if corpus:
        shows = f"the power for {corpus} over all of them is not known in advance"
    elif min(scored) == 1.0:
        shows = "all are right at the start, so no gain is possible"
    elif least is not None:
        shows = f"80 % power to detect +{least:.2f}"
    else:
        shows = "too few, or scores too alike, to detect any possible gain"
    rounds = count(max(1, planned), "round")
    few = "only " if len(scored) < 100 else ""
    tasks = count(len(scored), "gate task")
    return f"gate ({mode}): alpha {alpha:g} over {rounds}, {each:.3g} each; {few}{tasks}: {shows}"
