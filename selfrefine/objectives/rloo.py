"""REINFORCE leave-one-out: each completion is measured against the mean of the group's others.

    A_i = r_i - mean over j != i of r_j,   w_i = p(y_i|x_i) / p_old(y_i|x_i)
    L = (1/N) sum_i -min(w_i A_i, clip(w_i, 1 - clip_low, 1 + clip_high) A_i)

N counts the completions of the optimizer step, p_old is the policy that sampled y_i; w is of the whole
completion. With the setting kl, r_i is reduced by kl * log(p_old(y_i)/p_ref(y_i)) before A is computed.

Metrics: `ratio_max`; `clip_share`, the share of completions that were clipped; `kl` (`mean_kl`).

Source: Kool et al. 2019; for language models, with the KL penalty in the reward: Ahmadian et al. 2024.
Differs from the papers: 1. they take one step per sample and have no ratio; the clipped ratio of a whole
completion is PPO's and keeps several steps honest, in the first of which the gradient is theirs. 2. groups
without spread in the rewards are left out, also where kl would give them an advantage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from selfrefine.objectives.advantages import RewardKl, advantages, policy_gradient
from selfrefine.objectives.base import Batch, ClipHigh, ClipLow, Loss
from selfrefine.objectives.terms import clipped, known, mean_kl, ratio, sums

if TYPE_CHECKING:
    from torch import Tensor


class RlooSettings(Struct, frozen=True, forbid_unknown_fields=True):
    clip_low: ClipLow = 0.2
    clip_high: ClipHigh = 0.28
    kl: RewardKl = 0.0


def leave_one_out(returns: Sequence[float]) -> float:
    """r - mean of the others is this times r - mean of all."""
    return len(returns) / (len(returns) - 1)


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


RLOO = policy_gradient(
    name="rloo",
    loss=rloo,
    settings=RlooSettings,
    prepare=lambda items, own: advantages(items, own.kl, leave_one_out),
    source="Kool et al. 2019, Ahmadian et al. 2024",
)
