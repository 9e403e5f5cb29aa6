"""What is known before the first step and stays: logprobs under policies other than the one being trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from selfrefine.compute.forward import cut, scored
from selfrefine.compute.packing import Pair
from selfrefine.memory import Memory, out_of_memory
from selfrefine.objectives.base import Item, ObjectiveKind, StepBaseline

As = Callable[[Path | None], AbstractContextManager[None]]
"""Inside `as_policy(folder)` the model is base + that adapter, or the bare base."""


def fix(
    model: Any,
    items: Sequence[Item],
    objective: ObjectiveKind,
    own: Any,
    token_budget: int,
    as_policy: As,
    *,
    sampler: Path | None,
    reference: Path | None,
    memory: Memory | None = None,
) -> list[Item]:
    """Items with all that the objective needs besides the trained policy's logprobs.

    Computed with the forward pass of training and without gradient, from adapters on disk: a resumed training
    gets the same numbers. `sampler` is the adapter that answered in this round.
    """
    made = list(items)
    if objective.needs_old_logprobs:
        missing = [i for i, item in enumerate(made) if not _has_old(item)]
        rows = []
        if missing:
            with as_policy(sampler):
                rows = logprobs_of(model, [tokens_of(made[i]) for i in missing], token_budget, memory)
        for i, row in zip(missing, rows, strict=True):
            # What was recorded stays: a stop string's end-of-turn alone was not sampled and has no logprob.
            recorded = made[i].old_logprobs or ()
            made[i] = replace(made[i], old_logprobs=(*recorded, *row[len(recorded) :]))
    if objective.wants_reference(own):
        with as_policy(reference):
            made = _with_reference(model, made, objective.step_baseline, token_budget, memory)
    return objective.prepare(made, own) if objective.prepare else made


def _with_reference(
    model: Any, items: list[Item], asks: StepBaseline | None, token_budget: int, memory: Memory | None
) -> list[Item]:
    rows = logprobs_of(model, [tokens_of(item) for item in items], token_budget, memory)
    made = [replace(item, reference_logprobs=row) for item, row in zip(items, rows, strict=True)]
    if asks is not None:
        others = asks.others(made)
        mixed = [(item.prompt_token_ids, other) for item, other in zip(made, others, strict=True)]
        totals = map(sum, logprobs_of(model, mixed, token_budget, memory))
        made = [
            replace(item, other_token_ids=other, other_reference=float(total))
            for item, other, total in zip(made, others, totals, strict=True)
        ]
    return made


def _has_old(item: Item) -> bool:
    return item.old_logprobs is not None and len(item.old_logprobs) == len(item.completion_token_ids)


def tokens_of(item: Item) -> Pair:
    """The item's prompt and completion, as the forward pass takes them."""
    return item.prompt_token_ids, item.completion_token_ids


def logprobs_of(
    model: Any, pairs: Sequence[Pair], token_budget: int, memory: Memory | None = None
) -> list[tuple[float, ...]]:
    """`completion_logprobs` as plain numbers, in micro-batches, without gradient and without dropout.

    Where memory runs out the budget is halved (`memory` keeps it).
    Raises: EngineError when a single pair is too much.
    """
    memory = memory or Memory()
    training = model.training
    model.eval()
    try:
        while True:
            try:
                return scored(model, pairs, memory.tokens("training", token_budget))
            except (RuntimeError, MemoryError) as error:
                if (why := out_of_memory(error)) is None:
                    raise
            mend = "a single prompt and its answer do not fit: drop the longest rows"
            memory.halve("training", token_budget, partial(cut, model, pairs), why, mend)
    finally:
        model.train(training)


def baseline(
    model: Any,
    items: Sequence[Item],
    asks: StepBaseline | None,
    token_budget: int,
    memory: Memory | None = None,
) -> float:
    """`Batch.baseline` of a step; 0 where the objective has none, or there is nothing to ask."""
    asked = [item for item in items if item.other_token_ids]
    if asks is None or not asked:
        return 0.0
    pairs = [(item.prompt_token_ids, item.other_token_ids) for item in asked]
    rows = logprobs_of(model, pairs, token_budget, memory)
    return asks.value([sum(row) - item.other_reference for row, item in zip(rows, asked, strict=True)])
