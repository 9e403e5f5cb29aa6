"""REINFORCE with the group's mean reward as the baseline.

    L = - (1/N) sum_i w_i A_i log p(y_i|x_i),   A_i = r_i - mean of the group,
    w_i = min(1 + clip_high, p(y_i|x_i) / p_old(y_i|x_i)),  without gradient

N counts the completions of the optimizer step, p_old is the policy that sampled y_i. In the first step after
sampling w = 1 and this is REINFORCE itself; later, and in further passes over the same samples, w keeps the
gradient that of the present policy. With the setting kl, r_i is reduced by kl * log(p_old(y_i)/p_ref(y_i)).

Metrics: `ratio_max`; `clip_share`, the share of completions whose weight was cut; `kl` (`mean_kl`).

Source: REINFORCE with a baseline (Williams 1992); truncated importance weights (Ionides 2008).
Differs from the papers: 1. the baseline includes the completion itself, which scales the gradient by
(n-1)/n against `rloo` and leaves its direction. 2. the whole completion is one action. 3. groups without
spread in the rewards are left out, also where kl would give them an advantage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from selfrefine.objectives.advantages import RewardKl, advantages, policy_gradient
from selfrefine.objectives.base import Batch, Loss
from selfrefine.objectives.terms import known, mean_kl, ratio, sums

if TYPE_CHECKING:
    from torch import Tensor


class ReinforceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    clip_high: Annotated[float, Meta(gt=0.0, description="Importance weights are capped at 1 plus this.")] = (
        0.28
    )
    kl: RewardKl = 0.0


def reinforce(logprobs: Sequence[Tensor], batch: Batch) -> Loss:
    """logprobs: one tensor [tokens] of nats for each of batch.items."""
    total = sums(logprobs)
    advantages = known((item.advantage for item in batch.items), total)
    before = known((sum(item.old_logprobs or ()) for item in batch.items), total)
    ratios = ratio(total.detach() - before)
    most = 1.0 + batch.settings.clip_high
    losses = -ratios.clamp(max=most) * advantages * total
    metrics = {
        "ratio_max": float(ratios.max()),
        "clip_share": float((ratios > most).sum()) / batch.step_items,
        **mean_kl(logprobs, batch),
    }
    return Loss(losses.sum() / batch.step_items, metrics)


REINFORCE = policy_gradient(
    name="reinforce",
    loss=reinforce,
    settings=ReinforceSettings,
    prepare=lambda items, own: advantages(items, own.kl),
    source="Williams 1992, with truncated importance weights (Ionides 2008)",
)
