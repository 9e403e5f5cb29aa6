"""Pairs stay whole: in a step, and in a micro-batch."""

from __future__ import annotations

import pytest

from selfrefine.config import TrainConfig
from selfrefine.objectives.base import Item
from selfrefine.training.plan import micro_batches, plan_steps, units


def one(prompt: int, tokens: int = 1, pair: str | None = None) -> Item:
    return Item(id="i", prompt_token_ids=(prompt,) * 3, completion_token_ids=(9,) * tokens, pair=pair)


def pairs(count: int, prompts: int) -> list[Item]:
    """The chosen rows first, then the rejected: halves are far apart in the input."""
    return [one(i % prompts, pair=f"p{i}") for _ in range(2) for i in range(count)]


def test_units_are_pairs_and_single_items() -> None:
    assert units([one(1, pair="a"), one(1), one(1, pair="a"), one(2)]) == [[0, 2], [1], [3]]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize("epochs", [1, 2, 0.5])
def test_no_step_has_half_a_pair(size: int, epochs: float) -> None:
    items = pairs(7, prompts=3)
    steps = plan_steps(items, TrainConfig(batch_size=size, epochs=epochs), 4)
    seen = [i for step in steps for i in step]
    for step in steps:
        names = [items[i].pair for i in step]
        assert all(names.count(name) % 2 == 0 for name in names)
        assert len(step) <= max(2, size)
    if epochs >= 1:
        assert sorted(seen) == sorted([*range(14)] * int(epochs))
    else:
        assert abs(len(seen) - 7) <= max(2, size)


def test_steps_override_epochs_with_pairs_too() -> None:
    steps = plan_steps(pairs(3, prompts=3), TrainConfig(batch_size=5, steps=4), 0)
    assert [len(step) for step in steps] == [4, 4, 4, 4]


def test_a_pair_over_the_budget_is_not_split() -> None:
    """By tokens alone the second completion would be pushed into the next micro-batch."""
    items = [one(1, 4, "a"), one(1, 5, "a"), one(1, 4, "b"), one(1, 5, "b"), one(2, 2)]
    for budget in (1, 8, 12, 20):
        cut = micro_batches(items, budget)
        assert sorted(i for micro in cut for i in micro) == [0, 1, 2, 3, 4]
        assert all((0 in micro) == (1 in micro) and (2 in micro) == (3 in micro) for micro in cut)
    assert micro_batches(items, 12) == [[0, 1], [2, 3], [4]]
    # Where nothing is shared a pair is two rows: of 8, with one of 5 beside them three of 8.
    assert micro_batches(items, 24, shared=False) == [[4, 0, 1], [2, 3]]
    assert micro_batches(items, 23, shared=False) == [[4], [0, 1], [2, 3]]
    assert micro_batches(items, 21) == [[0, 1, 2, 3], [4]]  # 3 + 4 x 4.5: the prompt is paid for once
