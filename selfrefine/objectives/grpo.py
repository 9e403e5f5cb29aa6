"""Group relative policy optimisation: PPO's clipped ratio per token, advantages from the group.

With w_it = p(y_it | x_i, y_i<t) / p_old(y_it | x_i, y_i<t) and p_old the policy that sampled:

    A_i = (r_i - mean of the group) / (std of the group + 1e-4),   without the division: divide_by_std = false
    l_it = -min(w_it A_i, clip(w_it, 1 - clip_low, 1 + clip_high) A_i) + kl * k_it
    k_it = p_ref/p - log(p_ref/p) - 1

    normalise = "tokens"       L = (1/T) sum_i sum_t l_it           T: completion tokens of the optimizer step
    normalise = "sequences"    L = (1/N) sum_i (1/|y_i|) sum_t l_it  N: completions of the optimizer step

Metrics: `ratio_max`; `clip_share`, the share of tokens that were clipped; `kl` (`mean_kl`).

Source: GRPO (Shao et al. 2024, eq. 3 and 4: "sequences"); DAPO (Yu et al. 2025, eq. 8: "tokens", asymmetric
clip, no KL); without the division by std: Dr. GRPO (Liu et al. 2025, section 3).
Differs from the papers: 1. std is that of a sample (n - 1), and 1e-4 is added. 2. groups without spread are
left out; drawing more (DAPO's dynamic sampling) is a stage of its own. 3. Dr. GRPO's constant in place of
T or |y_i| is not offered.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from selfrefine.objectives.advantages import advantages, policy_gradient
from selfrefine.objectives.base import Batch, ClipHigh, ClipLow, Item, Loss
from selfrefine.objectives.terms import (
    clipped,
    joined,
    kl_per_token,
    mean_kl,
    old,
    per_token,
    ratio,
    reference,
)

if TYPE_CHECKING:
    from torch import Tensor


STD_FLOOR = 1e-4


class GrpoSettings(Struct, frozen=True, forbid_unknown_fields=True):
    clip_low: ClipLow = 0.2
    clip_high: ClipHigh = 0.28
    normalise: Annotated[
        Literal["tokens", "sequences"],
        Meta(
            description="`tokens`: mean over all tokens of a step; `sequences`: mean of each answer's mean."
        ),
    ] = "tokens"
    divide_by_std: Annotated[
        bool, Meta(description="Divide advantages by the group's standard deviation.")
    ] = True
    kl: Annotated[
        float, Meta(ge=0.0, description="Weight of the KL divergence from the reference, added to the loss.")
    ] = 0.0


def _advantages(items: Sequence[Item], own: GrpoSettings) -> list[Item]:
    """Without the penalty in the rewards: the loss has a term of its own."""
    if not own.divide_by_std:
        return advantages(items, 0.0)
    return advantages(items, 0.0, lambda returns: 1.0 / (statistics.stdev(returns) + STD_FLOOR))


def grpo(logprobs: Sequence[Tensor], batch: Batch) -> Loss:
    """logprobs: one tensor [tokens] of nats for each of batch.items."""
    own, items = batch.settings, batch.items
    flat = joined(logprobs)
    ratios = ratio(flat - old(items, flat))
    advantages = per_token(items, (item.advantage for item in items), flat)
    losses, outside = clipped(ratios, advantages, own.clip_low, own.clip_high)
    if own.kl:
        losses = losses + own.kl * kl_per_token(flat, reference(items, flat))
    if own.normalise == "tokens":
        value = losses.sum() / batch.step_tokens
    else:
        shares = (1.0 / (max(1, len(item.completion_token_ids)) * batch.step_items) for item in items)
        value = (losses * per_token(items, shares, flat)).sum()
    metrics = {
        "ratio_max": float(ratios.detach().max()) if len(flat) else 0.0,
        "clip_share": float(outside.sum()) / batch.step_tokens,
        **mean_kl(logprobs, batch),
    }
    return Loss(value, metrics)


GRPO = policy_gradient(
    name="grpo",
    loss=grpo,
    settings=GrpoSettings,
    prepare=_advantages,
    source="Shao et al. 2024, DAPO (Yu et al. 2025)",
)
