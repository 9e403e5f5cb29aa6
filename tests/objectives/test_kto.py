"""KTO by hand, and its unrelated completions."""

from __future__ import annotations

import math

import pytest
from rows import batch, gradients, item, leaf, settings

from selfrefine.objectives.base import Item
from selfrefine.objectives.kto import kto, unrelated


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_good_and_a_bad_answer_by_hand() -> None:
    """h is 2 and 1, z0 0.5, beta 0.5: 1 - sigmoid(0.75) for the good one, 1 - sigmoid(-0.25) for the bad."""
    items = [
        item(2, role="chosen", reference_logprobs=(-2.0, -2.0)),
        item(1, role="rejected", reference_logprobs=(-3.0,)),
    ]
    rows = [leaf(-1.0, -1.0), leaf(-2.0)]
    own = settings("kto", beta=0.5, desirable_weight=1.0, undesirable_weight=3.0)
    loss = kto(rows, batch(items, own, z0=0.5))
    good, bad = sigmoid(0.75), sigmoid(-0.25)
    assert loss.value.item() == pytest.approx(((1 - good) + 3 * (1 - bad)) / 2)
    expected = [-0.25 * good * (1 - good)] * 2 + [0.25 * 3 * bad * (1 - bad)]
    assert gradients(loss.value, rows).tolist() == pytest.approx(expected)
    assert loss.metrics["baseline"] == pytest.approx(0.5)
    assert loss.metrics["accuracy"] == pytest.approx(0.5)  # the bad one is above the baseline
    assert loss.metrics["margin"] == pytest.approx((0.5 * 2 - 0.5 * 1) / 2)


def of(prompt: int, completion: int) -> Item:
    return item(0, prompt_token_ids=(prompt,), completion_token_ids=(completion,))


def test_an_unrelated_answer_is_never_one_to_the_same_prompt() -> None:
    """The next row of the batch, as the paper takes it, is here mostly another sample of the same prompt."""
    items = [of(1, 11), of(1, 12), of(1, 13), of(2, 21), of(3, 31), of(3, 32)]
    found = unrelated(items)
    assert found == [(21,), (21,), (21,), (31,), (11,), (12,)]


def test_with_one_prompt_there_is_no_unrelated_answer() -> None:
    assert unrelated([of(1, 11), of(1, 12)]) == [(), ()]
