"""Supervised fine-tuning in which better completions count more.

    L = - (1 / T) * sum_i w_i sum_t log p(y_it | x_i, y_i<t)

with T the completion tokens of the whole optimizer step. The weights come from the rewards r in [0, 1] and
the mean m of the group (`advantages.weights`), by `objective.weights`:

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

from collections.abc import Sequence

from torch import Tensor

from selfrefine.objectives.base import Batch, Loss
from selfrefine.objectives.terms import known, sums


def weighted_sft(logprobs: Sequence[Tensor], batch: Batch) -> Loss:
    """logprobs: one tensor [tokens] of nats for each of batch.items."""
    total = sums(logprobs)
    weights = known((item.weight for item in batch.items), total)
    mean = float(weights.sum()) / batch.step_items
    return Loss(-(weights * total).sum() / batch.step_tokens, {"weight": mean})
