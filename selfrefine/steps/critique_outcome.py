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
from typing import Any

from msgspec import Struct

from selfrefine.records import Sample

MAX_FRESH = 64
RIGHT = 1.0 - 1e-9


class PassOutcome(Struct, frozen=True, kw_only=True):
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

    def __add__(self, other: PassOutcome) -> PassOutcome:
        return PassOutcome(**_added(self, other))


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of it, as sums: the outcomes of windows are added. Tokens are sampled ones."""

    drafts: int = 0
    passed_through: int = 0
    passes: tuple[PassOutcome, ...] = ()
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

    def __add__(self, other: Outcome) -> Outcome:
        longest = max(len(self.passes), len(other.passes))
        mine, theirs = (o.passes + (PassOutcome(),) * (longest - len(o.passes)) for o in (self, other))
        sums = _added(self, other) | {"passes": tuple(a + b for a, b in zip(mine, theirs, strict=True))}
        return Outcome(**sums)


def summary(outcome: Outcome) -> dict[str, Any]:
    """What the summary line and --summary-json show; a rate over nothing is null.

    The comparison's figures are all over the same `compared` drafts.
    """
    critiques = sum(one.critiques for one in outcome.passes)
    unparsed = sum(one.unparsed for one in outcome.passes)
    arms = ("draft", "revision", "fresh")
    shown = [arm for arm in arms if arm != "fresh" or outcome.fresh]
    return {
        "drafts": outcome.drafts,
        "passed_through": outcome.passed_through,
        "critiques": critiques,
        "unparsed_share": _rate(unparsed, critiques),
        "verdict_ok": sum(one.ok for one in outcome.passes),
        "revisions": sum(one.revisions for one in outcome.passes),
        "failed": sum(one.failed for one in outcome.passes),
        "passes": [{name: getattr(one, name) for name in one.__struct_fields__} for one in outcome.passes],
        "tokens": {
            "draft": outcome.draft_tokens,
            "critique": outcome.critique_tokens,
            "revision": outcome.revision_tokens,
            "fresh": outcome.fresh_tokens,
            "fresh_budget": outcome.budget_tokens,
        },
        "comparison": {
            "compared": outcome.compared,
            "fresh_samples": outcome.fresh,
            "right": {arm: _rate(getattr(outcome, f"{arm}_right"), outcome.compared) for arm in shown},
            "fresh_best_right": _rate(outcome.fresh_best_right, outcome.compared) if outcome.fresh else None,
            "reward": {arm: _rate(getattr(outcome, f"{arm}_reward"), outcome.compared) for arm in shown},
        },
    }


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


def _added(a: Struct, b: Struct) -> dict[str, Any]:
    return {name: getattr(a, name) + getattr(b, name) for name in a.__struct_fields__ if name != "passes"}


def _rate(part: float, whole: float) -> float | None:
    return part / whole if whole else None
