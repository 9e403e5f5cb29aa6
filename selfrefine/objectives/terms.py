"""What several objectives are made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from selfrefine.objectives.base import Batch, Item

if TYPE_CHECKING:
    from torch import Tensor


def known(values: Iterable[float], like: Tensor) -> Tensor:
    """Numbers that carry no gradient, beside a tensor that does."""
    return like.new_tensor(list(values))


def per_token(items: Sequence[Item], values: Iterable[float], like: Tensor) -> Tensor:
    """One value an item, repeated for each of its tokens."""
    pairs = zip(items, values, strict=True)
    return known(
        itertools.chain.from_iterable([value] * len(item.completion_token_ids) for item, value in pairs), like
    )


def old(items: Sequence[Item], like: Tensor) -> Tensor:
    """Logprobs at sampling, all items' tokens in a row."""
    return known(itertools.chain.from_iterable(item.old_logprobs or () for item in items), like)


def reference(items: Sequence[Item], like: Tensor) -> Tensor:
    """Logprobs under the reference policy, all items' tokens in a row."""
    return known(itertools.chain.from_iterable(item.reference_logprobs or () for item in items), like)


def taught(items: Sequence[Item], like: Tensor) -> Tensor:
    """The teacher's nats [tokens, top_k + 1], all items' tokens one below the other."""
    import numpy as np
    import torch

    rows = [torch.from_numpy(np.asarray(item.taught.logprobs)) for item in items if item.taught is not None]
    return torch.cat(rows).view(like.shape).to(like)


def sums(logprobs: Sequence[Tensor]) -> Tensor:
    """Log-probability of each whole completion."""
    import torch

    return torch.stack([row.sum() for row in logprobs])


def joined(logprobs: Sequence[Tensor]) -> Tensor:
    """All items' tokens in a row."""
    import torch

    return torch.cat(list(logprobs))


def log_ratios(logprobs: Sequence[Tensor], items: Sequence[Item]) -> Tensor:
    """log p(y|x) - log p_ref(y|x) of each whole completion."""
    total = sums(logprobs)
    return total - known((sum(item.reference_logprobs or ()) for item in items), total)


def kl_per_token(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Schulman's estimate of KL(policy || reference) from tokens of the policy: never negative, unbiased.

    Source: J. Schulman, "Approximating KL Divergence" (2020), k3; GRPO (Shao et al. 2024), eq. 4.
    """
    difference = reference - logprobs
    return ratio(difference) - difference - 1.0


def ratio(difference: Tensor) -> Tensor:
    """exp of a difference of logprobs, in nats. Held below e^80: beyond it float32 is infinite, and what a
    clip has set to 0 would come out as 0 times infinity."""
    return difference.clamp(max=80.0).exp()


def clipped(ratios: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """PPO's pessimistic loss, and where the clip has taken the gradient away.

    Source: PPO (Schulman et al. 2017), eq. 7; separate bounds: DAPO (Yu et al. 2025), eq. 8.
    """
    losses = -(ratios * advantages).minimum(ratios.clamp(1.0 - low, 1.0 + high) * advantages)
    outside = ((ratios < 1.0 - low) & (advantages < 0)) | ((ratios > 1.0 + high) & (advantages > 0))
    return losses, outside


def mean_kl(logprobs: Sequence[Tensor], batch: Batch) -> dict[str, float]:
    """The metric `kl` of a policy gradient, nats per token of the step: KL(policy || reference) where
    objective.kl has the reference computed, else KL(sampling policy || policy), whose tokens these are."""
    flat = joined(logprobs).detach()
    if batch.settings.kl:
        found = kl_per_token(flat, reference(batch.items, flat))
    else:
        found = kl_per_token(old(batch.items, flat), flat)
    return {"kl": float(found.sum()) / batch.step_tokens}


def kl_from_reference(logprobs: Sequence[Tensor], batch: Batch) -> dict[str, float]:
    """The metric `kl` of a preference objective: KL(reference || policy), nats per token of the step. Its
    answers come from policies near the reference; those it makes unlikely count by how unlikely they are."""
    flat = joined(logprobs).detach()
    return {"kl": float(kl_per_token(reference(batch.items, flat), flat).sum()) / batch.step_tokens}
