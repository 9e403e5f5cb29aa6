"""The contract of an objective: logprobs of completions in, one differentiable number out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec import Struct


class Item(Struct, frozen=True, kw_only=True):
    """One completion to learn from."""

    id: str
    prompt_token_ids: tuple[int, ...]
    completion_token_ids: tuple[int, ...]
    reward: float | None = None


class Batch(NamedTuple):
    """A micro-batch, with what its optimizer step as a whole amounts to.

    Dividing by the step's figures and not by the micro-batch's makes the sum of the micro-batches' losses the
    step's loss: the token budget changes memory, not the gradient.
    """

    items: Sequence[Item]
    step_items: int
    step_tokens: int


class Loss(NamedTuple):
    value: Any
    """A scalar tensor; the values of a step's micro-batches add up."""
    metrics: dict[str, float]


Objective = Callable[[Sequence[Any], Batch], Loss]
"""(logprobs, one tensor of nats a completion; batch) -> Loss."""
