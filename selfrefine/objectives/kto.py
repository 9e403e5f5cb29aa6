"""Kahneman-Tversky optimisation: completions that are each good or bad, without pairs.

With h(y) = log p(y|x) - log p_ref(y|x), N the completions of the optimizer step and z0 its baseline:

    L = (1/N) [ sum over chosen    desirable_weight   * (1 - sigmoid(beta * (h(y) - z0)))
              + sum over rejected  undesirable_weight * (1 - sigmoid(beta * (z0 - h(y)))) ]
    z0 = max(0, mean over the step's prompts x_i of h(u_i | x_i))

where u_i is a completion that was sampled for another prompt (`unrelated`). z0 estimates the KL divergence
from the reference, carries no gradient, and is computed for the whole step before its first backward pass:
a mean per micro-batch would make the loss depend on the token budget.

Source: KTO (Ethayarajh et al. 2024, eq. 7).
Differs from the paper: 1. u_i is fixed for the whole training and comes from another prompt; the paper takes
the next completion of the micro-batch, which here would mostly be an answer to the same prompt. With one
prompt in all there is no unrelated completion, and z0 is 0. 2. weights are not balanced by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from selfrefine.objectives.base import Batch, Item, Loss, ObjectiveKind, StepBaseline
from selfrefine.objectives.terms import kl_from_reference, known, log_ratios

if TYPE_CHECKING:
    from torch import Tensor


class KtoSettings(Struct, frozen=True, forbid_unknown_fields=True):
    beta: Annotated[float, Meta(gt=0.0, description="Strength of the pull towards the reference.")] = 0.1
    desirable_weight: Annotated[float, Meta(ge=0.0, description="Weight of good answers.")] = 1.0
    undesirable_weight: Annotated[float, Meta(ge=0.0, description="Weight of bad answers.")] = 1.0


def kto(logprobs: Sequence[Tensor], batch: Batch) -> Loss:
    """logprobs: one tensor [tokens] of nats for each of batch.items."""
    own = batch.settings
    ratios = log_ratios(logprobs, batch.items)
    chosen = [item.role == "chosen" for item in batch.items]
    signs = known((1.0 if good else -1.0 for good in chosen), ratios)
    weights = known((own.desirable_weight if good else own.undesirable_weight for good in chosen), ratios)
    values = (own.beta * signs * (ratios - batch.baseline)).sigmoid()
    rewards = own.beta * ratios.detach()
    metrics = {
        # Of each completion against the baseline: there are no pairs to compare.
        "accuracy": float((signs * (ratios.detach() - batch.baseline) > 0).sum()) / batch.step_items,
        "margin": float((signs * rewards).sum()) / batch.step_items,
        "baseline": batch.baseline * len(batch.items) / batch.step_items,
        **kl_from_reference(logprobs, batch),
    }
    return Loss((weights * (1.0 - values)).sum() / batch.step_items, metrics)


def unrelated(items: Sequence[Item]) -> list[tuple[int, ...]]:
    """For each item the completion of another prompt, evenly spread; empty where there is one prompt only."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i, item in enumerate(items):
        by_prompt.setdefault(item.prompt_token_ids, []).append(i)
    found: list[tuple[int, ...]] = [()] * len(items)
    members = list(by_prompt.values())
    if len(members) > 1:
        for own, others in zip(members, [*members[1:], members[0]], strict=True):
            for place, i in enumerate(own):
                found[i] = items[others[place % len(others)]].completion_token_ids
    return found


KTO = ObjectiveKind(
    name="kto",
    about="answers, each labelled good or bad",
    rows="labels",
    loss=kto,
    settings=KtoSettings,
    learning_rate=5e-6,
    needs_reference=True,
    step_baseline=StepBaseline(unrelated, lambda off: max(0.0, sum(off) / len(off))),
    source="Ethayarajh et al. 2024",
)
