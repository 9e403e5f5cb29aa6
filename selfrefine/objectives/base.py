"""The contract of an objective: logprobs of completions in, one differentiable number out.

An objective's file ends in an `ObjectiveKind`, which is read by configuration, `--help` and the docs. So no
file of this room loads torch when it is imported: its types stand under TYPE_CHECKING, its functions are
imported inside functions.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct

from selfrefine.registry import BUILT_IN, NoSettings, Origin


class Taught(Struct, frozen=True, kw_only=True):
    """What a teacher says where each token of a completion stands. Arrays: Python's numbers would take four
    times the memory."""

    top_k: int
    ids: array[int]
    """The teacher's likeliest tokens, the likeliest first: top_k for each token of the completion."""
    logprobs: array[float]
    """Their nats, then those of all other tokens together: top_k + 1 for each token of the completion."""


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
    other_token_ids: tuple[int, ...] = ()
    """What `StepBaseline.others` says for this item; empty where it is not asked."""
    other_reference: float = 0.0
    """Nats of that whole completion under the reference policy, given this item's prompt."""
    teacher_prompt_token_ids: tuple[int, ...] = ()
    """The prompt with more in view, for an objective with a `teacher`; empty where there is nothing more."""
    taught: Taught | None = None
    """What the policy that sampled says under that prompt."""


class Batch(NamedTuple):
    """A micro-batch, with what its optimizer step as a whole amounts to.

    Dividing by the step's figures and not by the micro-batch's makes the sum of the micro-batches' losses the
    step's loss: the token budget changes memory, not the gradient.
    """

    items: Sequence[Item]
    step_items: int
    step_tokens: int
    settings: Any = None
    """The objective's own, as its kind's `settings` struct."""
    baseline: float = 0.0
    """What `StepBaseline.value` made of the step, in nats."""


class Loss(NamedTuple):
    value: Any
    """A scalar tensor; the values of a step's micro-batches add up."""
    metrics: dict[str, float]
    """They add up too, so means are divided by the step's figures; of names in _max the largest counts."""


LossFn = Callable[[Sequence[Any], Batch], Loss]
"""(logprobs, one tensor of nats a completion; batch) -> Loss. With a `teacher` they are not of the tokens of
the completion but of those in `Item.taught` and of the rest, [tokens, top_k + 1]."""

Rows = Literal["answers", "all", "pairs", "labels", "groups"]
"""What an objective learns from: good answers, all scored ones, chosen against rejected ones of one prompt,
answers that are each chosen or rejected, or all answers to a prompt."""


STRATEGIES: dict[Rows, tuple[str, ...]] = {
    "answers": ("best-of-n", "threshold", "all"),
    "all": ("all",),
    "pairs": ("pairs",),
    "labels": ("labels",),
    "groups": ("groups",),
}
"""`select.strategy` that gives such rows."""


class StepBaseline(NamedTuple):
    """A figure of a whole optimizer step that its loss needs, without gradient: `Batch.baseline`."""

    others: Callable[[Sequence[Item]], list[tuple[int, ...]]]
    """For each item a completion that is scored after the item's prompt; empty for none."""
    value: Callable[[Sequence[float]], float]
    """From the nats by which the step's policy is off the reference on each of them."""


class Teacher(NamedTuple):
    """The policy that sampled, with more in view than the one that learns: `Item.taught`."""

    prompt: str
    """Template of what it is asked (`prompts`, kind teacher), by name or path."""
    top_k: int
    """How many of its likeliest tokens are kept at each token."""


class ObjectiveKind(Struct, frozen=True, kw_only=True):
    """What an objective says of itself. Every field of `settings` has a `Meta(description=...)`.

    The hooks are called in this order: `fit` and `prepare` once, before the first step; `step_baseline` in
    each step; `loss` for each micro-batch.
    """

    name: str
    about: str
    """What it learns from, in a line."""
    rows: Rows
    loss: LossFn
    settings: type[Struct] = NoSettings
    learning_rate: float
    """Of LoRA, where `train.lr` is not set. Very small models stand more."""
    needs_old_logprobs: bool = False
    """It compares with the policy that sampled: `Item.old_logprobs` is there."""
    needs_reference: bool | Callable[[Any], bool] = False
    """It compares with a reference policy: `Item.reference_logprobs` is there. May depend on its settings."""
    fit: Callable[[list[Item], Any], list[Item]] | None = None
    """(items, settings): those it has a use for, with their `weight`."""
    prepare: Callable[[list[Item], Any], list[Item]] | None = None
    """(items with their logprobs, settings): with their `advantage`."""
    step_baseline: StepBaseline | None = None
    """Needs the reference."""
    teacher: Callable[[Any], Teacher] | None = None
    """From its settings: it learns from a teacher's distributions, and not from the tokens themselves."""
    unread: Callable[[Any], dict[str, str]] = lambda own: {}
    """Settings (or "reference") that have no effect beside these ones, and why."""
    source: str = ""
    """The paper it is from."""
    origin: Origin = BUILT_IN

    def wants_reference(self, own: Any) -> bool:
        return self.needs_reference(own) if callable(self.needs_reference) else self.needs_reference


ClipLow = Annotated[float, Meta(gt=0.0, le=1.0, description="Ratios are clipped below 1 minus this.")]
ClipHigh = Annotated[float, Meta(gt=0.0, description="Ratios are clipped above 1 plus this.")]


def add_metrics(total: dict[str, float], part: dict[str, float]) -> None:
    """Add a micro-batch's metrics to those of its step so far."""
    for name, value in part.items():
        if name not in total:
            total[name] = value
        elif name.endswith("_max"):
            total[name] = max(total[name], value)
        else:
            total[name] += value
