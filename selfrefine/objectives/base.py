"""The contract of an objective: logprobs of completions in, one differentiable number out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from selfrefine.config import ObjectiveConfig


class Item(Struct, frozen=True, kw_only=True):
    """One completion to learn from. The second half is filled in before the first step, where needed."""

    id: str
    prompt_token_ids: tuple[int, ...]
    completion_token_ids: tuple[int, ...]
    reward: float | None = None
    role: Literal["learn", "chosen", "rejected"] = "learn"
    pair: str | None = None
    group: str = ""
    """Together with the prompt: the completions that were sampled beside this one."""
    old_logprobs: tuple[float, ...] | None = None
    """Nats under the policy that sampled it, one a token; as an input it may be short or unknown."""

    reference_logprobs: tuple[float, ...] | None = None
    """Nats under the reference policy, one a token."""
    advantage: float = 0.0
    weight: float = 1.0
    """Of weighted-sft."""
    unrelated_token_ids: tuple[int, ...] = ()
    """A completion of another prompt, for KTO's baseline."""
    unrelated_reference: float = 0.0
    """Nats of that whole completion under the reference policy, given this item's prompt."""


class Batch(NamedTuple):
    """A micro-batch, with what its optimizer step as a whole amounts to.

    Dividing by the step's figures and not by the micro-batch's makes the sum of the micro-batches' losses the
    step's loss: the token budget changes memory, not the gradient.
    """

    items: Sequence[Item]
    step_items: int
    step_tokens: int
    settings: ObjectiveConfig = ObjectiveConfig()
    baseline: float = 0.0
    """KTO's z0: nats by which the step's policy is off the reference on unrelated completions."""


class Loss(NamedTuple):
    value: Any
    """A scalar tensor; the values of a step's micro-batches add up."""
    metrics: dict[str, float]
    """They add up too, so means are divided by the step's figures; of names in _max the largest counts."""


Objective = Callable[[Sequence[Any], Batch], Loss]
"""(logprobs, one tensor of nats a completion; batch) -> Loss."""


def add_metrics(total: dict[str, float], part: dict[str, float]) -> None:
    """Add a micro-batch's metrics to those of its step so far."""
    for name, value in part.items():
        if name not in total:
            total[name] = value
        elif name.endswith("_max"):
            total[name] = max(total[name], value)
        else:
            total[name] += value
