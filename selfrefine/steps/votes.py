"""How far the critics of one text agree: sums over texts, and the figures from them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from selfrefine.agreement import ScoreAgreement, VerdictAgreement, alpha
from selfrefine.records import Critique
from selfrefine.sums import Sums


class VoteSums(Sums, frozen=True, kw_only=True):
    """One critic's votes. `unread`: without a verdict that can be read; `failed`: not made at all."""

    critic: str = ""
    ok: int = 0
    revise: int = 0
    unread: int = 0
    failed: int = 0
    first_failure: str | None = None
    """Why the first of these was not made."""


class AgreementSums(Sums, frozen=True, kw_only=True):
    """A unit is one text in one pass. `critics`: in the order of `critique.critics`."""

    verdicts: VerdictAgreement = VerdictAgreement()
    scores: ScoreAgreement = ScoreAgreement()
    critics: tuple[VoteSums, ...] = ()


class Agreement(Struct, frozen=True, kw_only=True):
    """Krippendorff's alpha, 1: they agree; 0: as if by chance; below 0: they contradict each other. Null
    where fewer than two texts have two values, and where all values are the same (`agreement.alpha`)."""

    verdict_alpha: float | None = None
    verdict_units: int = 0
    """Texts with two verdicts or more; `score_units` in the same way."""
    score_alpha: float | None = None
    score_units: int = 0
    critics: tuple[VoteSums, ...] = ()


def counted(made: Sequence[Critique], names: Sequence[str]) -> AgreementSums:
    """Of critiques with votes; of others, nothing. `names`: of the critics, in the order of the votes."""
    units = [one.votes for one in made if one.votes]
    if not units:
        return AgreementSums()
    return AgreementSums(
        verdicts=VerdictAgreement.of([[vote.verdict for vote in unit] for unit in units]),
        scores=ScoreAgreement.of([[vote.score for vote in unit] for unit in units]),
        critics=tuple(_votes(name, own) for name, own in zip(names, zip(*units, strict=True), strict=True)),
    )


def _votes(name: str, own: Sequence[Critique]) -> VoteSums:
    failed = sum(one.finish_reason == "error" for one in own)
    ok, revise = (sum(one.verdict == what for one in own) for what in ("ok", "revise"))
    return VoteSums(
        critic=name,
        ok=ok,
        revise=revise,
        unread=len(own) - ok - revise - failed,
        failed=failed,
        first_failure=next((one.error for one in own if one.finish_reason == "error"), None),
    )


def agreed(total: AgreementSums) -> Agreement | None:
    """Figures from sums; None where there was one critic alone."""
    if not total.critics:
        return None
    return Agreement(
        verdict_alpha=alpha(total.verdicts),
        verdict_units=total.verdicts.units,
        score_alpha=alpha(total.scores),
        score_units=total.scores.units,
        critics=total.critics,
    )
