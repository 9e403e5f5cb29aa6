"""Which items a step has, in which order, and how fast each step learns."""

from __future__ import annotations

import math
from typing import Any

import pytest

from selfrefine.config import TrainConfig
from selfrefine.objectives.base import Item
from selfrefine.training.plan import plan_steps, rate_at


def config(**settings: Any) -> TrainConfig:
    return TrainConfig(**{"warmup": 0.0, "schedule": "constant"} | settings)


@pytest.mark.parametrize(("count", "size"), [(5, 2), (6, 3), (7, 7), (3, 8), (1, 1), (10, 4)])
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_whole_epochs_cover_every_item_once_an_epoch(count: int, size: int, epochs: int) -> None:
    steps = plan_steps(strangers(count), config(epochs=epochs, batch_size=size), 5)
    order = [i for step in steps for i in step]
    for epoch in range(epochs):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert len(order) == epochs * count and all(step for step in steps)
    assert {len(step) for step in steps[:-1]} <= {min(size, count)}


def test_plans_are_shuffled_by_the_seed_and_anew_in_each_epoch() -> None:
    settings = config(epochs=2, batch_size=20)
    [first, second] = plan_steps(strangers(20), settings, 0)
    assert first != second != sorted(second)
    assert plan_steps(strangers(20), settings, 0) == [first, second] != plan_steps(strangers(20), settings, 1)


def test_steps_override_epochs_and_fractions_round() -> None:
    assert [len(step) for step in plan_steps(strangers(5), config(steps=4, batch_size=3), 0)] == [3, 3, 3, 3]
    assert [len(step) for step in plan_steps(strangers(10), config(epochs=0.5, batch_size=2), 0)] == [2, 2]
    assert len(plan_steps(strangers(10), config(epochs=0.01, batch_size=2), 0)) == 1
    assert plan_steps([], config(), 0) == []


def test_the_schedule_by_hand() -> None:
    def rates(total: int, **settings: Any) -> list[float]:
        return [rate_at(step, total, config(lr=1.0, **settings)) for step in range(total)]

    assert rates(3, warmup=0.0, schedule="constant") == [1, 1, 1]
    assert rates(4, warmup=0.0, schedule="linear") == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates(6, warmup=0.5, schedule="linear") == pytest.approx([1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3])
    assert rates(4, warmup=0.0, schedule="cosine") == pytest.approx(
        [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]
    )


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_rate_is_never_above_what_was_asked_for_and_never_zero(schedule: str) -> None:
    """Where warm-up ends between two steps, the schedule must not be run backwards past its start."""
    for total in range(1, 25):
        for warmup in (0.0, 0.1, 0.33, 1.0):
            settings = config(lr=1.0, warmup=warmup, schedule=schedule)
            rates = [rate_at(step, total, settings) for step in range(total)]
            assert all(0.0 < rate <= 1.0 for rate in rates), (total, warmup)


def strangers(count: int) -> list[Item]:
    """Items of different prompts."""
    return [Item(id=f"i{k}", prompt_token_ids=(k + 1,), completion_token_ids=(1,)) for k in range(count)]


def test_completions_of_a_prompt_stand_together_in_a_step() -> None:
    items = [Item(id=f"{k}", prompt_token_ids=(k % 4,), completion_token_ids=(k,)) for k in range(16)]
    for step in plan_steps(items, config(epochs=3, batch_size=8), 1):
        prompts = [items[i].prompt_token_ids for i in step]
        assert len(set(prompts)) == 2
        assert prompts == sorted(prompts, key=prompts.index)
