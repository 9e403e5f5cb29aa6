"""How many passes a round's critique makes (`critique.stop_without_gain`): those that paid before.

Only a committed round's training critiques decide: a resumed round makes as many as it began with, and no
held-out task has a say. A pass pays where the mean reward of the texts it revised rose; what it was over is
other texts than those of the pass before, since what is ok leaves.
"""

from __future__ import annotations

from typing import NamedTuple

from selfrefine.errors import ConfigError
from selfrefine.stages.session import RunSession, Session
from selfrefine.steps.critique_outcome import CritiqueSummary, PassOutcome

_ROUNDING = 1e-9
"""Sums of rewards that differ by less differ in their rounding only."""


class Passes(NamedTuple):
    """`why` is a sentence where fewer are made than `critique.passes`."""

    n: int
    why: str | None = None


def passes_of(session: Session, before: int) -> Passes:
    """Of round `before`, or of a measurement after round `before` - 1: all rounds below it are committed.

    Raises: ConfigError outside a run, which has no earlier round.
    """
    own = session.config.critique
    wanted = max(1, own.passes)
    if not own.stop_without_gain:
        return Passes(wanted)
    if not isinstance(session, RunSession):
        raise ConfigError(
            "critique.stop_without_gain looks at the rounds of a run, and a pipe has none; leave it out"
        )
    for k in range(before - 1, 0, -1):
        found = session.run.round(k).stage_summary("critique", CritiqueSummary)
        if found is not None and found.passes:
            return paid(found.passes, k, wanted)
    return Passes(wanted)


def paid(passes: tuple[PassOutcome, ...], k: int, wanted: int) -> Passes:
    """The leading passes of round `k` that gained, 1 at least and `wanted` at most."""
    gains = [_gained(one) for one in passes]
    leading = gains.index(False) if False in gains else len(gains)
    n = min(max(1, leading), wanted)
    if n == wanted:
        return Passes(n)
    said = f"{n} of {wanted} passes: "
    if leading >= len(passes):  # all of them paid: what was left out before stays left out
        return Passes(n, f"{said}as in round {k}")
    one = passes[leading]
    if not one.scored:
        return Passes(n, f"{said}pass {leading + 1} revised nothing that has a reward in round {k}")
    before, after = (total / one.scored for total in (one.reward_before, one.reward_after))
    return Passes(n, f"{said}pass {leading + 1} gained nothing in round {k} ({before:.3f} → {after:.3f})")


def _gained(one: PassOutcome) -> bool:
    return one.reward_after - one.reward_before > _ROUNDING
