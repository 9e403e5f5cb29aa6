"""From rewards to advantages and weights: the one place where a completion meets the others of its prompt.

A group is the completions that were sampled for one task in one round, under the same prompt.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from msgspec.structs import replace

from selfrefine.config import ObjectiveConfig
from selfrefine.objectives.base import Item

SAME = 1e-6
"""Rewards nearer than this are equal: weighted means may differ in a last bit, which std would blow up."""
STD_FLOOR = 1e-4
WEIGHT_CAP = 20.0


def groups(items: Sequence[Item]) -> list[list[int]]:
    """Places of the members of each group, in order of first appearance."""
    found: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for i, item in enumerate(items):
        found.setdefault((item.group, item.prompt_token_ids), []).append(i)
    return list(found.values())


def has_spread(rewards: Sequence[float]) -> bool:
    """A group whose rewards are all alike has advantages of zero: nothing to learn from it."""
    return max(rewards) - min(rewards) > SAME


def advantages(items: Sequence[Item], settings: ObjectiveConfig) -> list[Item]:
    """The items with their advantages. Every reward is known.

    reinforce: r - mean; rloo: r - mean of the others; grpo: r - mean, divided by the sample's standard
    deviation + 1e-4 unless divide_by_std is off. For reinforce and rloo r includes the penalty
    kl * log(p_old/p_ref); grpo has its own term in the loss.
    """
    made = list(items)
    for members in groups(items):
        returns = [_return(items[i], settings) for i in members]
        mean, n = statistics.fmean(returns), len(members)
        scale = 1.0
        if settings.name == "rloo" and n > 1:
            scale = n / (n - 1)  # r - (sum - r) / (n - 1)
        elif settings.name == "grpo" and settings.divide_by_std and n > 1:
            scale = 1.0 / (statistics.stdev(returns) + STD_FLOOR)
        for i, value in zip(members, returns, strict=True):
            made[i] = replace(items[i], advantage=(value - mean) * scale)
    return made


def _return(item: Item, settings: ObjectiveConfig) -> float:
    reward = item.reward or 0.0
    if not settings.kl or settings.name == "grpo":
        return reward
    return reward - settings.kl * (sum(item.old_logprobs or ()) - sum(item.reference_logprobs or ()))


def weights(items: Sequence[Item], settings: ObjectiveConfig) -> list[Item]:
    """The items with the weights of weighted-sft; those of weight 0 are left out. Every reward is known."""
    weighed: dict[int, float] = {}
    for members in groups(items):
        rewards = [items[i].reward or 0.0 for i in members]
        mean = statistics.fmean(rewards)
        for i, reward in zip(members, rewards, strict=True):
            if settings.weights == "reward":
                weighed[i] = reward
            elif settings.weights == "filter":
                weighed[i] = float(reward - mean > SAME)
            else:
                # Capped before exp, which overflows where the temperature is small.
                power = min(math.log(WEIGHT_CAP), (reward - mean) / settings.weight_temperature)
                weighed[i] = math.exp(power)
    return [replace(item, weight=weighed[i]) for i, item in enumerate(items) if weighed[i] > 0.0]
