"""How revisions stand to their drafts, and what a critic's claims and verdicts are worth, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from selfrefine.report.words import number, percent
from selfrefine.words import count

if TYPE_CHECKING:
    from selfrefine.records import Critique
    from selfrefine.stages.revisions import RevisionSummary
    from selfrefine.steps.critique_outcome import CritiqueSummary
    from selfrefine.steps.votes import Agreement

_IGNORES = 0.02
"""A dependence below this is shown as none."""


def votes_said(critique: Critique) -> str:
    """ "1 ok, 2 revise": how several critics voted; "" of one alone."""
    if not critique.votes:
        return ""
    verdicts = Counter(vote.verdict or "no verdict" for vote in critique.votes)
    return ", ".join(f"{number(n)} {verdict}" for verdict, n in sorted(verdicts.items()))


def critic_lines(found: CritiqueSummary | RevisionSummary) -> Iterator[str]:
    """A line each for what was measured; nothing for what was not."""
    near = found.nearness
    if near.distance is not None:
        said = f"revisions are {near.distance:.2f} from their drafts (0 is a copy, 1 shares no word)"
        if near.copied:
            said += f", {percent(near.copied)} are copies"
        if near.resumed:
            said += f"; {number(near.resumed)} of {number(near.revisions)} went on from the draft's fault"
        elif near.dependence is not None and near.fresh_distance is not None:
            said += f"; fresh samples are {near.fresh_distance:.2f} from them: "
            said += "the draft is ignored" if near.dependence < _IGNORES else "the draft is used"
        yield said
    rates = (("wrong", near.right_after_wrong), ("right", near.right_after_right))
    known = [f"{rate:.3f} after {what} drafts" for what, rate in rates if rate is not None]
    if known:
        yield f"revisions are right in {' and '.join(known)}"
    claims = found.claims
    if claims.said or claims.true:
        said = f"{count(claims.said, 'claim')} of the critic"
        if claims.precision is not None:
            said += f", {percent(claims.precision)} of them true"
        if claims.recall is not None:
            said += f"; {percent(claims.recall)} of what is wrong was claimed"
        yield said
    if (verdicts := found.calibration) is not None:
        auc = "not defined, all of one kind" if verdicts.auc is None else f"{verdicts.auc:.2f}"
        said = f"{number(verdicts.n)} scored verdicts: AUC {auc} (0.5 is chance)"
        yield said + ("" if verdicts.ece is None else f", calibration error {verdicts.ece:.2f}")
    if found.agreement is not None:
        yield from _agreement(found.agreement)


def _agreement(found: Agreement) -> Iterator[str]:
    """Whether critics agree, and what each said: one that finds all ok agrees with nobody."""
    pairs = (("verdicts", found.verdict_alpha), ("scores", found.score_alpha))
    known = [f"{alpha:.2f} on {what}" for what, alpha in pairs if alpha is not None]
    said = f"{count(len(found.critics), 'critic')}: "
    if known:
        said += f"alpha {', '.join(known)} of {count(found.verdict_units or found.score_units, 'text')}"
        yield said + " (1 is agreement, 0 is chance)"
    else:
        yield said + "alpha is not known, as where all say the same"
    each = []
    for one in found.critics:
        votes = one.ok + one.revise
        words = "no verdict" if not votes else f"{percent(one.ok / votes)} ok"
        missing = one.unread + one.failed
        notes = [f"{number(missing)} without"] if votes and missing else []
        notes += [one.first_failure.removeprefix(f"{one.critic}: ")] if one.first_failure else []
        each.append(f"{one.critic} {words}" + (f" ({': '.join(notes)})" if notes else ""))
    yield f"verdicts: {', '.join(each)}"
