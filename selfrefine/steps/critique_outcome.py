"""What a critique pass came to, as sums that can be added window by window.

The honest comparison. Asking again costs tokens too, so each revised draft is put beside fresh samples of
its own prompt, as many as its critiques and revisions would have paid for (`fresh.py`). A fresh sample's
right-rate is the mean over its draft's; `best` is the oracle, any of the n. Where revisions are sampled
otherwise than drafts (cooler), fresh samples are drawn both ways, and the better of the two is the one that
revising must beat: a cooler second answer alone may be better than a draft. All figures of the comparison
are over the same drafts: those where draft, last revision and a fresh sample of each kind have a reward. A
draft the critic lets pass with `ok` costs a critique and is compared with nothing.

Does a revision change its draft, or does the policy answer again? Its similarity to its draft is put beside
that of the fresh samples to the same draft: the difference is 0 for a policy that ignores draft and critique.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from msgspec import UNSET, Struct, UnsetType

from selfrefine.agreement import Calibration, CalibrationSummary, calibration
from selfrefine.records import Sample
from selfrefine.runfolder.summaries import Cost, StageCost
from selfrefine.steps.resume import is_resumed
from selfrefine.steps.reward import MeanSums
from selfrefine.steps.select_details import claims, is_told
from selfrefine.steps.similarity import similarity
from selfrefine.steps.votes import Agreement, AgreementSums, agreed
from selfrefine.sums import Sums

RIGHT = 1.0 - 1e-9


Arm = Literal["drafts", "revisions"]
"""Fresh samples drawn as the drafts were, or as the revisions are."""


class PassOutcome(Sums, frozen=True, kw_only=True):
    """One pass. The four transitions are from the text that was criticised to its revision."""

    critiques: int = 0
    unparsed: int = 0
    ok: int = 0
    revisions: int = 0
    unchanged: int = 0
    failed: int = 0
    """Critiques and revisions the engine could not make (a prompt too long): a part of their counts."""
    wrong_right: int = 0
    right_wrong: int = 0
    right_right: int = 0
    wrong_wrong: int = 0
    unscored: int = 0
    reward_before: float = 0.0
    """Sum over the revisions of the four transitions; `reward_after` too."""
    reward_after: float = 0.0

    @property
    def scored(self) -> int:
        """Revisions whose text before and after has a reward."""
        return self.wrong_right + self.right_wrong + self.right_right + self.wrong_wrong


class FreshSums(Sums, frozen=True, kw_only=True):
    """Fresh samples of one kind. right, best_right and reward: over the drafts that are compared."""

    samples: int = 0
    tokens: int = 0
    right: float = 0.0
    best_right: float = 0.0
    reward: float = 0.0


class NearSums(Sums, frozen=True, kw_only=True):
    """Last revisions beside their drafts; fresh samples (as the revisions are drawn) beside these, too."""

    revisions: int = 0
    resumed: int = 0
    copied: int = 0
    similarity: float = 0.0
    beside_fresh: int = 0
    """The revisions with a fresh sample; the next two are over these."""
    own: float = 0.0
    fresh: float = 0.0


class ClaimSums(Sums, frozen=True, kw_only=True):
    """What a model's critiques say is wrong, beside what the rewards find in the same texts."""

    said: int = 0
    true: int = 0
    both: int = 0


class Outcome(Sums, frozen=True, kw_only=True):
    """What came of it, as sums: the outcomes of windows are added. Tokens are sampled ones."""

    drafts: int = 0
    passed_through: int = 0
    passes: tuple[PassOutcome, ...] = ()
    failed_critiques: int = 0
    first_failure: str | None = None
    """Why the first of these was not made."""
    draft_tokens: int = 0
    critique_tokens: int = 0
    revision_tokens: int = 0
    fresh: dict[str, FreshSums] = {}
    """By arm."""
    budget_tokens: int = 0
    """Critiques and revisions of the drafts that got fresh samples: what those of an arm stand against."""
    compared: int = 0
    """Drafts in the sums below: draft, last revision (and, with control, a fresh sample of each arm) have a
    reward."""
    draft_right: float = 0.0
    revision_right: float = 0.0
    draft_reward: float = 0.0
    revision_reward: float = 0.0
    near: NearSums = NearSums()
    claims: ClaimSums = ClaimSums()
    chances: Calibration = Calibration()
    """p_ok of scored verdicts against what is right."""
    agreement: AgreementSums = AgreementSums()
    rewards: dict[str, MeanSums] = {}
    """Of drafts and revisions, by name."""


class Tokens(Struct, frozen=True, kw_only=True):
    """Sampled ones. `fresh_budget` is what `fresh` stands against."""

    draft: int = 0
    critique: int = 0
    revision: int = 0
    fresh: int = 0
    fresh_budget: int = 0


class Arms(Struct, frozen=True, kw_only=True):
    """A rate for each side of the comparison; null over nothing."""

    draft: float | None = None
    revision: float | None = None
    fresh: float | UnsetType | None = UNSET
    """Absent where no fresh sample was drawn."""


class EqualCost(Struct, frozen=True, kw_only=True):
    """All figures are over the same `compared` drafts. `fresh` is the better arm, `fresh_as` says which."""

    compared: int = 0
    fresh_as: Arm | None = None
    fresh_samples: int = 0
    right: Arms = Arms()
    fresh_best_right: float | None = None
    reward: Arms = Arms()


class Nearness(Struct, frozen=True, kw_only=True):
    """How far revisions are from their drafts, in [0, 1] (1 - similarity); null over nothing."""

    revisions: int = 0
    resumed: int = 0
    """Went on from a fault: the draft up to there is theirs by construction."""
    copied: float | None = None
    """Share of the revisions that are their draft, white space at the ends aside."""
    distance: float | None = None
    fresh_distance: float | None = None
    """Of the fresh samples, drawn as the revisions, to the same drafts."""
    dependence: float | None = None
    """fresh_distance - distance over the revisions that have fresh samples: 0 where the policy ignores its
    draft, negative where it avoids it."""
    right_after_wrong: float | None = None
    right_after_right: float | None = None
    """Share of right revisions after wrong and after right texts; with several passes each attempt counts."""


class Claims(Struct, frozen=True, kw_only=True):
    """precision: share of a model's claims that are true; recall: share of what is wrong that it claims. Both
    null where there is nothing to divide by."""

    said: int = 0
    true: int = 0
    precision: float | None = None
    recall: float | None = None


class CritiqueSummary(StageCost, frozen=True, kw_only=True):
    """What critique came to: critique.json, and --summary-json. A rate over nothing is null."""

    drafts: int = 0
    passed_through: int = 0
    critiques: int = 0
    unparsed_share: float | None = None
    verdict_ok: int = 0
    revisions: int = 0
    failed: int = 0
    failed_critiques: int = 0
    """A part of `failed`; `first_failure` says why."""
    first_failure: str | UnsetType = UNSET
    passes: tuple[PassOutcome, ...] = ()
    tokens: Tokens = Tokens()
    comparison: EqualCost = EqualCost()
    nearness: Nearness = Nearness()
    claims: Claims = Claims()
    calibration: CalibrationSummary | None = None
    """Of scored verdicts; null where verdicts are written."""
    agreement: Agreement | None = None
    """Of several critics (`critique.critics`)."""


def summary(outcome: Outcome) -> CritiqueSummary:
    """Rates from sums. The fresh samples measure, and are no part of the cost."""
    own, passes = outcome, outcome.passes
    critiques = sum(one.critiques for one in passes)

    best = better(own)
    fresh = own.fresh[best] if best else FreshSums()

    def arms(what: str) -> Arms:
        rates = {side: _rate(getattr(own, f"{side}_{what}"), own.compared) for side in ("draft", "revision")}
        again = _rate(getattr(fresh, what), own.compared) if best else UNSET
        return Arms(**rates, fresh=again)

    return CritiqueSummary(
        cost=Cost(tokens=own.critique_tokens + own.revision_tokens),
        drafts=own.drafts,
        passed_through=own.passed_through,
        critiques=critiques,
        unparsed_share=_rate(sum(one.unparsed for one in passes), critiques),
        verdict_ok=sum(one.ok for one in passes),
        revisions=sum(one.revisions for one in passes),
        failed=sum(one.failed for one in passes),
        failed_critiques=own.failed_critiques,
        first_failure=UNSET if own.first_failure is None else own.first_failure,
        passes=passes,
        tokens=Tokens(
            draft=own.draft_tokens,
            critique=own.critique_tokens,
            revision=own.revision_tokens,
            fresh=sum(arm.tokens for arm in own.fresh.values()),
            fresh_budget=own.budget_tokens,
        ),
        comparison=EqualCost(
            compared=own.compared,
            fresh_as=best,
            fresh_samples=fresh.samples,
            right=arms("right"),
            fresh_best_right=_rate(fresh.best_right, own.compared) if best else None,
            reward=arms("reward"),
        ),
        nearness=near(own),
        claims=claims_made(own),
        calibration=calibrated(own),
        agreement=agreed(own.agreement),
    )


def better(outcome: Outcome) -> Arm | None:
    """The arm whose fresh samples have the higher mean reward; of equals the one drawn as the drafts were."""
    drawn = [arm for arm in get_args(Arm) if arm in outcome.fresh]
    return max(drawn, key=lambda arm: outcome.fresh[arm].reward, default=None)


def near(outcome: Outcome) -> Nearness:
    """Rates from sums."""
    own = outcome.near
    to_right = sum(one.wrong_right for one in outcome.passes), sum(one.right_right for one in outcome.passes)
    to_wrong = sum(one.wrong_wrong for one in outcome.passes), sum(one.right_wrong for one in outcome.passes)
    rates = [_rate(right, right + wrong) for right, wrong in zip(to_right, to_wrong, strict=True)]
    alike = _rate(own.similarity, own.revisions)
    return Nearness(
        revisions=own.revisions,
        resumed=own.resumed,
        copied=_rate(own.copied, own.revisions),
        distance=None if alike is None else 1 - alike,
        fresh_distance=1 - own.fresh / own.beside_fresh if own.beside_fresh else None,
        dependence=_rate(own.own - own.fresh, own.beside_fresh),
        right_after_wrong=rates[0],
        right_after_right=rates[1],
    )


def unread_share(outcome: Outcome) -> float | None:
    """Of the critiques that were written, those without a verdict that can be read."""
    unread = sum(one.unparsed for one in outcome.passes)
    return _rate(unread, sum(one.critiques for one in outcome.passes) - outcome.failed_critiques)


def transition(before: Sample, after: Sample) -> PassOutcome:
    """One revision: `before` is the text that was criticised."""
    if after.finish_reason == "error":
        return PassOutcome(revisions=1, failed=1, unscored=1)
    made = PassOutcome(revisions=1, unchanged=int(after.text == before.text))
    if before.reward is None or after.reward is None:
        return made + PassOutcome(unscored=1)
    words = ["right" if is_right(reward) else "wrong" for reward in (before.reward, after.reward)]
    return made + PassOutcome(**{"_".join(words): 1}, reward_before=before.reward, reward_after=after.reward)


def comparison(rows: Sequence[Sample], tokens: int, fresh: Mapping[Arm, Sequence[Sample]]) -> Outcome:
    """One revised draft: `rows` from it to its last revision, what they cost, the fresh samples by arm."""
    drawn = {
        str(arm): FreshSums(samples=len(own), tokens=sum(row.sampled_tokens for row in own))
        for arm, own in fresh.items()
    }
    outcome = Outcome(fresh=drawn, budget_tokens=tokens if fresh else 0)
    draft, revision = rows[0].reward, rows[-1].reward
    rewards = {str(arm): [row.reward for row in own if row.reward is not None] for arm, own in fresh.items()}
    if draft is None or revision is None or not all(rewards.values()):
        return outcome
    return outcome + Outcome(
        compared=1,
        draft_right=is_right(draft),
        revision_right=is_right(revision),
        draft_reward=draft,
        revision_reward=revision,
        fresh={
            arm: FreshSums(
                right=sum(map(is_right, own)) / len(own),
                best_right=any(map(is_right, own)),
                reward=sum(own) / len(own),
            )
            for arm, own in rewards.items()
        },
    )


def claims_made(outcome: Outcome) -> Claims:
    """Rates from sums."""
    own = outcome.claims
    return Claims(
        said=own.said, true=own.true, precision=_rate(own.both, own.said), recall=_rate(own.both, own.true)
    )


def calibrated(outcome: Outcome) -> CalibrationSummary | None:
    """Figures from sums; None where no verdict was scored."""
    found = calibration(outcome.chances)
    return found if found.n else None


def judged(rows: Sequence[Sample]) -> Outcome:
    """Criticised texts with their rewards: were their critics' claims and chances right? Of texts that no
    reward, or not every one, could score nothing is known."""
    chances, said_true = [], ClaimSums()
    for row in rows:
        if row.reward is None or None in [reward.value for reward in row.rewards]:
            continue
        wrong = [
            reward.detail for reward in row.rewards if reward.detail and not is_right(reward.value or 0.0)
        ]
        true = frozenset[str]().union(*map(claims, wrong))
        for one in (voice for critique in row.critiques for voice in critique.voices):
            if one.p_ok is not UNSET:
                chances.append((one.p_ok, is_right(row.reward)))
            if is_told(one) or one.finish_reason == "error":
                continue
            said = claims(one.text)
            said_true += ClaimSums(said=len(said), true=len(true), both=len(said & true))
    return Outcome(claims=said_true, chances=Calibration.of(chances))


def nearness(rows: Sequence[Sample], fresh: Mapping[Arm, Sequence[Sample]]) -> Outcome:
    """One revised draft's last revision, if it has a text, and the fresh samples beside the draft."""
    draft, revision = rows[0], rows[-1]
    if revision.finish_reason == "error":
        return Outcome()
    alike = similarity(draft.text, revision.text)
    near = NearSums(
        revisions=1,
        resumed=int(is_resumed(revision)),
        copied=int(draft.text.strip() == revision.text.strip()),
        similarity=alike,
    )
    again = [
        similarity(draft.text, row.text)
        for row in fresh.get("revisions", fresh.get("drafts", ()))
        if row.finish_reason != "error"
    ]
    if again:
        near += NearSums(beside_fresh=1, own=alike, fresh=sum(again) / len(again))
    return Outcome(near=near)


def is_right(reward: float) -> bool:
    return reward >= RIGHT


def _rate(part: float, whole: float) -> float | None:
    return part / whole if whole else None
