"""Which items an optimizer step has, which a micro-batch, and how fast each step learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from selfrefine import seeds
from selfrefine.compute.forward import by_budget, rows_by_budget
from selfrefine.config import TrainConfig
from selfrefine.objectives.base import Item

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}

Unit = list[int]
"""Places of items that must stay together: a pair, or one item."""


def units(items: Sequence[Item]) -> list[Unit]:
    """The items as pairs and single ones, in order of first appearance."""
    found: dict[str | int, Unit] = {}
    for i, item in enumerate(items):
        found.setdefault(i if item.pair is None else item.pair, []).append(i)
    return list(found.values())


def longest_row(items: Sequence[Item]) -> int:
    """Tokens of the longest prompt with its answer."""
    return max((len(item.prompt_token_ids) + len(item.completion_token_ids) for item in items), default=0)


def taught_lengths(items: Sequence[Item]) -> list[int]:
    """Tokens of each teacher's prompt with the answer; none of items without a teacher."""
    asked = (item for item in items if item.teacher_prompt_token_ids)
    return [len(item.teacher_prompt_token_ids) + len(item.completion_token_ids) for item in asked]


def plan_steps(items: Sequence[Item], settings: TrainConfig, seed: int) -> list[list[int]]:
    """Indices of each optimizer step: shuffled passes over the prompts, a fresh order each pass.

    The completions of a prompt stand together, so that a step computes most prompts once. A pair is never
    split: where there are pairs, an odd batch_size is one less.
    """
    if not items:
        return []
    groups: dict[tuple[int, ...], list[Unit]] = {}
    for unit in units(items):
        groups.setdefault(items[unit[0]].prompt_token_ids, []).append(unit)
    members = list(groups.values())
    count = len(items)
    largest = max(len(unit) for group in members for unit in group)
    size = max(largest, min(settings.batch_size, count) // largest * largest)
    wanted = settings.steps or max(1, round(settings.epochs * count / size))
    whole = not settings.steps and settings.epochs == int(settings.epochs)
    steps: list[list[int]] = []
    epoch = 0
    while epoch < settings.epochs if whole else len(steps) <= wanted:
        shuffled = seeds.generator(seeds.derive(seed, "order", epoch)).permutation(len(members))
        for unit in (unit for k in shuffled.tolist() for unit in members[k]):
            if not steps or len(steps[-1]) + len(unit) > size:
                steps.append([])
            steps[-1] += unit
        epoch += 1
    # Whole epochs end with what is left over instead of borrowing from an epoch that never comes.
    return steps if whole else steps[:wanted]


def micro_batches(items: Sequence[Item], token_budget: int, *, shared: bool = True) -> list[list[int]]:
    """Cut a step's items into micro-batches of at most `token_budget` tokens; one pair or item always fits.

    An objective on pairs needs both logprobs at once, so a pair counts as one long completion.
    """
    found = units(items)
    if not shared:
        rows = [
            [len(items[i].prompt_token_ids) + len(items[i].completion_token_ids) for i in unit]
            for unit in found
        ]
        return [[i for u in micro for i in found[u]] for micro in rows_by_budget(rows, token_budget)]
    whole = [
        (items[unit[0]].prompt_token_ids, [token for i in unit for token in items[i].completion_token_ids])
        for unit in found
    ]
    return [[i for u in micro for i in found[u]] for micro in by_budget(whole, token_budget)]


def rate_at(step: int, total: int, settings: TrainConfig) -> float:
    """Learning rate of step 0 ≤ step < total."""
    assert settings.lr is not None  # `train` fills in the objective's
    warm = settings.warmup * total
    if step + 1 <= warm:
        return settings.lr * (step + 1) / warm
    # Where warm-up ends between two steps, the schedule starts at its start, not before it.
    done = max(0.0, (step - warm) / max(1.0, total - warm))
    return settings.lr * SCHEDULES[settings.schedule](done)
