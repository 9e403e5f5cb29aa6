"""REINFORCE leave-one-out: each completion is measured against the mean of the group's others.

    A_i = r_i - mean over j != i of r_j,   w_i = p(y_i|x_i) / p_old(y_i|x_i)
    L = (1/N) sum_i -min(w_i A_i, clip(w_i, 1 - clip_low, 1 + clip_high) A_i)

N counts the completions of the optimizer step, p_old is the policy that sampled y_i; w is of the whole
completion. With objective.kl, r_i is reduced by kl * log(p_old(y_i)/p_ref(y_i)) before A is computed.

Metrics: `ratio_max`; `clip_share`, the share of completions that were clipped; `kl` (`mean_kl`).

Source: Kool et al. 2019; for language models, with the KL penalty in the reward: Ahmadian et al. 2024.
Differs from the papers: 1. they take one step per sample and have no ratio; the clipped ratio of a whole
completion is PPO's and keeps several steps honest, in the first of which the gradient is theirs. 2. groups
without spread in the rewards are left out, also where kl would give them an advantage.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from selfrefine.objectives.base import Batch, Loss
from selfrefine.objectives.terms import clipped, known, mean_kl, ratio, sums


def rloo(logprobs: Sequence[Tensor], batch: Batch) -> Loss:
    """logprobs: one tensor [tokens] of nats for each of batch.items."""
    own = batch.settings
    total = sums(logprobs)
    advantages = known((item.advantage for item in batch.items), total)
    before = known((sum(item.old_logprobs or ()) for item in batch.items), total)
    ratios = ratio(total - before)
    losses, outside = clipped(ratios, advantages, own.clip_low, own.clip_high)
    metrics = {
        "ratio_max": float(ratios.detach().max()),
        "clip_share": float(outside.sum()) / batch.step_items,
        **mean_kl(logprobs, batch),
    }
    return Loss(losses.sum() / batch.step_items, metrics)
