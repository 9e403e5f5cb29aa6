"""What is known before the first step and stays: logprobs under policies other than the one being trained,
and what a teacher says. `policy_logprobs` are held against it in each step."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor

from selfrefine.compute.forward import (
    class_logprobs,
    completion_logprobs,
    cut,
    in_parts,
    scored,
    top_classes,
)
from selfrefine.compute.packing import Pair
from selfrefine.memory import Memory, out_of_memory
from selfrefine.objectives.base import Item, ObjectiveKind, StepBaseline, Taught

T = TypeVar("T")

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
    if objective.teacher is not None:
        with as_policy(sampler):
            made = _with_teacher(model, made, objective.teacher(own).top_k, token_budget, memory)
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


def _with_teacher(
    model: Any, items: list[Item], top_k: int, token_budget: int, memory: Memory | None
) -> list[Item]:
    pairs = [(item.teacher_prompt_token_ids, item.completion_token_ids) for item in items]

    def told(part: list[Pair]) -> list[Taught]:
        return [taught(ids, logprobs) for ids, logprobs in top_classes(model, part, top_k)]

    found = _frozen(model, pairs, token_budget, memory, lambda budget: in_parts(model, pairs, budget, told))
    return [replace(item, taught=one) for item, one in zip(items, found, strict=True)]


def taught(ids_Nk: Tensor, logprobs_Nm: Tensor) -> Taught:
    """As an item keeps it."""
    return Taught(
        top_k=ids_Nk.shape[-1],
        ids=array("i", ids_Nk.int().cpu().numpy().tobytes()),
        logprobs=array("f", logprobs_Nm.float().cpu().numpy().tobytes()),
    )


def policy_logprobs(model: Any, items: Sequence[Item], objective: ObjectiveKind) -> list[Tensor]:
    """What the objective's loss gets (`LossFn`). Differentiable."""
    pairs = list(map(tokens_of, items))
    if objective.teacher is None:
        return completion_logprobs(model, pairs)
    told = [item.taught for item in items if item.taught is not None]
    ids = [torch.from_numpy(np.asarray(one.ids)).long().view(-1, one.top_k) for one in told]
    return class_logprobs(model, pairs, ids)


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
    return _frozen(model, pairs, token_budget, memory, lambda budget: scored(model, pairs, budget))


def _frozen(
    model: Any,
    pairs: Sequence[Pair],
    token_budget: int,
    memory: Memory | None,
    compute: Callable[[int], list[T]],
) -> list[T]:
    """What `compute` makes of the pairs under a token budget, without dropout. As `logprobs_of`."""
    memory = memory or Memory()
    training = model.training
    model.eval()
    try:
        while True:
            try:
                return compute(memory.tokens("training", token_budget))
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
