"""Advantages by hand: the group is the samples of one task in one round under one prompt."""

from __future__ import annotations

import statistics

import pytest
from rows import item, settings

from selfrefine.objectives import OBJECTIVES
from selfrefine.objectives.advantages import groups, has_spread
from selfrefine.objectives.base import Item


def found(items: list[Item], name: str, **given: object) -> list[float]:
    prepare = OBJECTIVES.get(name).prepare
    assert prepare is not None
    return [made.advantage for made in prepare(items, settings(name, **given))]


def scored(*rewards: float, **fields: object) -> list[Item]:
    return [item(1, reward=reward, **{"group": "g", **fields}) for reward in rewards]  # type: ignore[arg-type]


def test_one_right_answer_of_four_by_hand() -> None:
    group = scored(1.0, 0.0, 0.0, 0.0)
    assert found(group, "reinforce") == pytest.approx([0.75, -0.25, -0.25, -0.25])
    # Leave-one-out: 1 - 0, and 0 - 1/3 for each other.
    assert found(group, "rloo") == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])
    # Sample standard deviation of (1, 0, 0, 0): 0.5.
    assert found(group, "grpo") == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3])
    assert found(group, "grpo", divide_by_std=False) == pytest.approx([0.75, -0.25, -0.25, -0.25])


def test_groups_of_any_size_and_in_any_order() -> None:
    """Filtering leaves groups of unequal size: reshaping to (prompts, n) would mix prompts."""
    a, b = scored(1.0, 0.0, 0.5, group="a"), scored(0.2, 0.4, group="b")
    mixed = [a[0], b[0], a[1], b[1], a[2]]
    assert groups(mixed) == [[0, 2, 4], [1, 3]]
    assert found(mixed, "reinforce") == pytest.approx([0.5, -0.1, -0.5, 0.1, 0.0])
    assert found(mixed, "rloo") == pytest.approx([0.75, -0.2, -0.75, 0.2, 0.0])


def test_one_task_under_two_prompts_is_two_groups() -> None:
    """A draft and a revision answer one task; against each other they would be compared by their prompts."""
    drafts, revisions = scored(0.0, 0.2), scored(0.8, 1.0, prompt_token_ids=(5, 6))
    assert found([*drafts, *revisions], "reinforce") == pytest.approx([-0.1, 0.1, -0.1, 0.1])


def test_the_kl_penalty_stands_in_the_reward() -> None:
    """kl 0.1 times (old - reference) of the whole answer: 0.2 nats more for the first of equal rewards."""
    group = [
        item(2, group="g", reward=1.0, old_logprobs=(-1.0, -1.0), reference_logprobs=(-1.1, -1.1)),
        item(2, group="g", reward=1.0, old_logprobs=(-1.0, -2.0), reference_logprobs=(-1.0, -2.0)),
    ]
    assert found(group, "rloo", kl=0.1) == pytest.approx([-0.02, 0.02])
    assert found(group, "reinforce", kl=0.1) == pytest.approx([-0.01, 0.01])
    assert found(group, "grpo", kl=0.1) == [0.0, 0.0]  # grpo has its term in the loss


def test_a_difference_in_the_last_bit_is_no_spread() -> None:
    """0.1 + 0.2 and 0.3 divided by their deviation would be advantages of plus and minus 0.7."""
    assert not has_spread([0.1 + 0.2, 0.3, 0.3])
    assert has_spread([0.3, 0.31])
    assert max(map(abs, found(scored(0.1 + 0.2, 0.3), "grpo"))) < 1e-9


def test_advantages_of_a_group_add_up_to_nothing() -> None:
    for name in ("reinforce", "rloo", "grpo"):
        assert sum(found(scored(0.1, 0.9, 0.4, 0.4, 1.0), name)) == pytest.approx(0.0, abs=1e-12)
    assert statistics.pstdev(found(scored(0.1, 0.9, 0.4), "grpo")) == pytest.approx((2 / 3) ** 0.5, abs=1e-3)
