"""Supervised fine-tuning in which better completions count more.

    L = - (1 / T) * sum_i w_i sum_t log p(y_it | x_i, y_i<t)

with T the completion tokens of the whole optimizer step. The weights come from the rewards r in [0, 1] and
the mean m of the group (`weights`), by the setting `weights`:

    reward         w = r
    exponential    w = min(20, exp((r - m) / weight_temperature))
    filter         w = 1 where r > m, else the completion is left out

Source: reward: reward-weighted regression (Peters & Schaal 2007). exponential: advantage-weighted regression
(Peng et al. 2019, algorithm 1, and its cap of 20). filter: the binary weights of critic-regularised
regression (Wang et al. 2020).
Differs from the papers: 1. the baseline is the group's mean, not a learnt value function. 2. the loss is
divided by tokens, not by the sum of the weights: where all rewards are low, the step is small. 3. rewards are
taken as they are, reward-weighted regression would transform them so that they lie above zero. 4. m is over
the rows of the group that were selected: cut-off answers are missing, and with select.dedupe an answer that
was given twice counts once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from selfrefine.objectives.advantages import SAME, groups
from selfrefine.objectives.base import Batch, Item, Loss, ObjectiveKind
from selfrefine.objectives.terms import known, sums

if TYPE_CHECKING:
    from torch import Tensor


WEIGHT_CAP = 20.0


class WeightedSettings(Struct, frozen=True, forbid_unknown_fields=True):
    weights: Annotated[
        Literal["reward", "exponential", "filter"],
        Meta(
            description="`reward`: the reward itself; `exponential`: exp of the reward's distance from the "
            "group's mean; `filter`: 1 above that mean, else 0."
        ),
    ] = "reward"
    weight_temperature: Annotated[
        float, Meta(gt=0.0, description="Temperature of `exponential`: lower favours the best answers more.")
    ] = 1.0


def weights(items: Sequence[Item], own: WeightedSettings) -> list[Item]:
    """The items with their weights; those of weight 0 are left out. Every reward is known."""
    weighed: dict[int, float] = {}
    for members in groups(items):
        rewards = [items[i].reward or 0.0 for i in members]
        mean = statistics.fmean(rewards)
        for i, reward in zip(members, rewards, strict=True):
            if own.weights == "reward":
                weighed[i] = reward
            elif own.weights == "filter":
                weighed[i] = float(reward - mean > SAME)
            else:
                # Capped before exp, which overflows where the temperature is small.
                power = min(math.log(WEIGHT_CAP), (reward - mean) / own.weight_temperature)
                weighed[i] = math.exp(power)
    return [replace(item, weight=weighed[i]) for i, item in enumerate(items) if weighed[i] > 0.0]


def weighted_sft(logprobs: Sequence[Tensor], batch: Batch) -> Loss:
    """logprobs: one tensor [tokens] of nats for each of batch.items."""
    total = sums(logprobs)
    weights = known((item.weight for item in batch.items), total)
    mean = float(weights.sum()) / batch.step_items
    return Loss(-(weights * total).sum() / batch.step_tokens, {"weight": mean})


WEIGHTED_SFT = ObjectiveKind(
    name="weighted-sft",
    about="all scored answers, weighted by their reward",
    rows="all",
    loss=weighted_sft,
    settings=WeightedSettings,
    learning_rate=2e-4,
    fit=weights,
    unread=lambda own: (
        {} if own.weights == "exponential" else {"weight_temperature": "only weights=exponential reads it"}
    ),
    source="reward-weighted and advantage-weighted regression",
)
