"""Preference losses by hand."""

from __future__ import annotations

import math

import pytest
from rows import batch, gradients, item, leaf, settings

from selfrefine.objectives.dpo import dpo, in_pairs, ipo


def pair(name: str, chosen: tuple[float, ...], rejected: tuple[float, ...]) -> list[object]:
    """Items with these reference logprobs."""
    return [
        item(len(chosen), pair=name, role="chosen", reference_logprobs=chosen),
        item(len(rejected), pair=name, role="rejected", reference_logprobs=rejected),
    ]


def test_at_the_reference_the_loss_is_log_2_and_the_gradient_half_of_beta() -> None:
    items = pair("p", (-1.0, -2.0), (-0.5,))
    rows = [leaf(-1.0, -2.0), leaf(-0.5)]
    loss = dpo(rows, batch(items, settings("dpo", beta=0.4)))
    assert loss.value.item() == pytest.approx(math.log(2))
    assert gradients(loss.value, rows).tolist() == pytest.approx([-0.2, -0.2, 0.2])
    assert loss.metrics == {"accuracy": 0.0, "margin": 0.0, "kl": 0.0}


def test_one_pair_by_hand() -> None:
    """h(chosen) = -2 + 3 = 1, h(rejected) = -4 + 2 = -2, beta 0.5: margin 1.5, -log sigmoid(1.5) = 0.2014."""
    items = pair("p", (-1.0, -2.0), (-2.0,))
    rows = [leaf(-1.0, -1.0), leaf(-4.0)]
    loss = dpo(rows, batch(items, settings("dpo", beta=0.5)))
    assert loss.value.item() == pytest.approx(math.log(1 + math.exp(-1.5)))
    push = 0.5 / (1 + math.exp(1.5))
    assert gradients(loss.value, rows).tolist() == pytest.approx([-push, -push, push])
    # p/p_ref is 1, e and 1/e^2 a token: (0 + (e - 2) + (1/e^2 + 1)) / 3 nats.
    kl = pytest.approx((math.e - 1 + math.exp(-2)) / 3)
    assert loss.metrics == {"accuracy": 1.0, "margin": pytest.approx(1.5), "kl": kl}


def test_the_nll_term_is_the_mean_of_the_chosen_tokens() -> None:
    """Iterative RPO: alpha 2 times (1 + 1) / 2 tokens on top; the rejected answer has no such term."""
    items = pair("p", (-1.0, -2.0), (-2.0,))
    rows = [leaf(-1.0, -1.0), leaf(-4.0)]
    plain = dpo(rows, batch(items, settings("dpo"))).value
    loss = dpo(rows, batch(items, settings("dpo", nll=2.0))).value
    assert loss.item() - plain.item() == pytest.approx(2.0)
    extra = gradients(loss, rows) - gradients(plain, rows)
    assert extra.tolist() == pytest.approx([-1.0, -1.0, 0.0])


def test_ipo_by_hand_is_of_means_over_tokens() -> None:
    """1/2 - (-2) = 2.5 against the target 1/(2 * 0.25) = 2: 0.25. With sums it would be (3 - 2)^2 = 1."""
    items = pair("p", (-1.0, -2.0), (-2.0,))
    rows = [leaf(-1.0, -1.0), leaf(-4.0)]
    loss = ipo(rows, batch(items, settings("ipo", beta=0.25)))
    assert loss.value.item() == pytest.approx(0.25)
    assert gradients(loss.value, rows).tolist() == pytest.approx([0.5, 0.5, -1.0])


def test_pairs_are_found_whatever_the_order() -> None:
    items = [*pair("p", (-1.0,), (-1.0,)), *pair("q", (-1.0,), (-1.0,))]
    mixed = [items[3], items[0], items[2], items[1]]
    assert in_pairs(mixed) == ([1, 2], [3, 0])


def test_a_step_over_the_end_of_an_epoch_counts_a_pair_twice() -> None:
    """Paired by name alone, the second copy would be lost while the divisor counts it."""
    once = pair("p", (-1.0,), (-1.0,))
    rows = [leaf(-0.5), leaf(-2.0), leaf(-0.5), leaf(-2.0)]
    own = settings("dpo", beta=1.0)
    twice = dpo(rows, batch([*once, *once], own))  # type: ignore[list-item]
    alone = dpo(rows[:2], batch(once, own))
    assert twice.value.item() == pytest.approx(alone.value.item())
    assert twice.metrics == pytest.approx(alone.metrics)
