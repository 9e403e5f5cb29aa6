"""From rewards to advantages: the one place where a completion meets the others of its prompt.

A group is the completions that were sampled for one task in one round, under the same prompt.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from msgspec import Meta
from msgspec.structs import replace

from selfrefine.objectives.base import Item, ObjectiveKind

RewardKl = Annotated[
    float,
    Meta(ge=0.0, description="Weight of the KL divergence from the reference, subtracted from the rewards."),
]
SAME = 1e-6
"""Rewards nearer than this are equal: weighted means may differ in a last bit, which std would blow up."""


def groups(items: Sequence[Item]) -> list[list[int]]:
    """Places of the members of each group, in order of first appearance."""
    found: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for i, item in enumerate(items):
        found.setdefault((item.group, item.prompt_token_ids), []).append(i)
    return list(found.values())


def has_spread(rewards: Sequence[float]) -> bool:
    """A group whose rewards are all alike has advantages of zero: nothing to learn from it."""
    return max(rewards) - min(rewards) > SAME


def advantages(
    items: Sequence[Item], kl: float, scale: Callable[[Sequence[float]], float] = lambda returns: 1.0
) -> list[Item]:
    """The items with their advantages: (r - mean of the group) * scale of the group. Every reward is known.

    r includes the penalty kl * log(p_old/p_ref).
    """
    made = list(items)
    for members in groups(items):
        returns = [_return(items[i], kl) for i in members]
        mean = statistics.fmean(returns)
        factor = scale(returns) if len(members) > 1 else 1.0
        for i, value in zip(members, returns, strict=True):
            made[i] = replace(items[i], advantage=(value - mean) * factor)
    return made


def _return(item: Item, kl: float) -> float:
    reward = item.reward or 0.0
    if not kl:
        return reward
    return reward - kl * (sum(item.old_logprobs or ()) - sum(item.reference_logprobs or ()))


def policy_gradient(**own: Any) -> ObjectiveKind:
    """An objective that learns from groups; with a reference only where its setting `kl` is above 0."""

    def unread(own: Any) -> dict[str, str]:
        return {} if own.kl else {"reference": "objective.kl is 0, so no reference is used"}

    return ObjectiveKind(
        about="all answers to a prompt, compared with each other",
        rows="groups",
        learning_rate=1e-5,
        needs_old_logprobs=True,
        needs_reference=lambda own: own.kl > 0,
        unread=unread,
        **own,
    )
