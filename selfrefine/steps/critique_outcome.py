"""What a critique pass came to, as sums that can be added window by window.

The honest comparison. Asking again costs tokens too, so each revised draft is put beside fresh samples of
its own prompt: n = cost / mean length, at least 1 and at most MAX_FRESH, where cost is the sampled tokens of
all its critiques and revisions and mean length is over the drafts of the same task, or over a single draft
and its revisions. n is fixed before the
first fresh sample: drawing "until the tokens are used up" would stop late after short answers and early
after long ones, and where wrong answers are longer (or shorter) the mean would be biased. A fresh sample's
right-rate is the mean over its draft's n; `best` is the oracle, any of the n. All figures of the comparison
are over the same drafts: those where draft, last revision and a fresh sample all have a reward. A draft the
critic lets pass with `ok` costs a critique and is compared with nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, Struct, UnsetType

from selfrefine.records import Sample
from selfrefine.runfolder.summaries import Cost, StageCost
from selfrefine.steps.reward import MeanSums
from selfrefine.sums import Sums

MAX_FRESH = 64
RIGHT = 1.0 - 1e-9


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


class Outcome(Sums, frozen=True, kw_only=True):
    """What came of it, as sums: the outcomes of windows are added. Tokens are sampled ones."""

    drafts: int = 0
    passed_through: int = 0
    passes: tuple[PassOutcome, ...] = ()
    failed_critiques: int = 0
    draft_tokens: int = 0
    critique_tokens: int = 0
    revision_tokens: int = 0
    fresh: int = 0
    fresh_tokens: int = 0
    budget_tokens: int = 0
    """Critiques and revisions of the drafts that got fresh samples: what `fresh_tokens` stands against."""
    compared: int = 0
    """Drafts in the sums below: draft, last revision (and, with control, a fresh sample) have a reward."""
    draft_right: float = 0.0
    revision_right: float = 0.0
    fresh_right: float = 0.0
    fresh_best_right: float = 0.0
    draft_reward: float = 0.0
    revision_reward: float = 0.0
    fresh_reward: float = 0.0
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
    """All figures are over the same `compared` drafts."""

    compared: int = 0
    fresh_samples: int = 0
    right: Arms = Arms()
    fresh_best_right: float | None = None
    reward: Arms = Arms()


class CritiqueSummary(StageCost, frozen=True, kw_only=True):
    """What critique came to: critique.json, and --summary-json. A rate over nothing is null."""

    drafts: int = 0
    passed_through: int = 0
    critiques: int = 0
    unparsed_share: float | None = None
    verdict_ok: int = 0
    revisions: int = 0
    failed: int = 0
    passes: tuple[PassOutcome, ...] = ()
    tokens: Tokens = Tokens()
    comparison: EqualCost = EqualCost()


def summary(outcome: Outcome) -> CritiqueSummary:
    """Rates from sums. The fresh samples measure, and are no part of the cost."""
    own, passes = outcome, outcome.passes
    critiques = sum(one.critiques for one in passes)

    def arms(what: str) -> Arms:
        rates = {side: _rate(getattr(own, f"{side}_{what}"), own.compared) for side in ("draft", "revision")}
        fresh = _rate(getattr(own, f"fresh_{what}"), own.compared) if own.fresh else UNSET
        return Arms(**rates, fresh=fresh)

    return CritiqueSummary(
        cost=Cost(tokens=own.critique_tokens + own.revision_tokens),
        drafts=own.drafts,
        passed_through=own.passed_through,
        critiques=critiques,
        unparsed_share=_rate(sum(one.unparsed for one in passes), critiques),
        verdict_ok=sum(one.ok for one in passes),
        revisions=sum(one.revisions for one in passes),
        failed=sum(one.failed for one in passes),
        passes=passes,
        tokens=Tokens(
            draft=own.draft_tokens,
            critique=own.critique_tokens,
            revision=own.revision_tokens,
            fresh=own.fresh_tokens,
            fresh_budget=own.budget_tokens,
        ),
        comparison=EqualCost(
            compared=own.compared,
            fresh_samples=own.fresh,
            right=arms("right"),
            fresh_best_right=_rate(own.fresh_best_right, own.compared) if own.fresh else None,
            reward=arms("reward"),
        ),
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
    return made + PassOutcome(**{"_".join(words): 1})


def comparison(rows: Sequence[Sample], tokens: int, fresh: Sequence[Sample] | None) -> Outcome:
    """One revised draft: `rows` from it to its last revision, what they cost, its fresh samples if drawn."""
    outcome = Outcome()
    if fresh is not None:
        fresh_tokens = sum(len(row.token_ids) for row in fresh)
        outcome = Outcome(fresh=len(fresh), fresh_tokens=fresh_tokens, budget_tokens=tokens)
    draft, revision = rows[0].reward, rows[-1].reward
    rewards = [row.reward for row in fresh or () if row.reward is not None]
    if draft is None or revision is None or (fresh is not None and not rewards):
        return outcome
    right = [is_right(reward) for reward in rewards]
    return outcome + Outcome(
        compared=1,
        draft_right=is_right(draft),
        revision_right=is_right(revision),
        fresh_right=sum(right) / max(1, len(right)),
        fresh_best_right=any(right),
        draft_reward=draft,
        revision_reward=revision,
        fresh_reward=sum(rewards) / max(1, len(rewards)),
    )


def n_fresh(cost_tokens: int, draft_lengths: Sequence[int]) -> int:
    """How many fresh samples `cost_tokens` would pay for: to the nearest, within 1 and MAX_FRESH."""
    mean_length = sum(draft_lengths) / len(draft_lengths)
    return min(max(1, round(cost_tokens / mean_length)), MAX_FRESH)


def is_right(reward: float) -> bool:
    return reward >= RIGHT


def _rate(part: float, whole: float) -> float | None:
    return part / whole if whole else None
