"""reinforce, rloo and grpo by hand: ratios against the logprobs of sampling, and where clipping acts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from rows import batch, gradients, item, leaf, near, ragged, settings

from selfrefine.objectives import OBJECTIVES
from selfrefine.objectives.grpo import grpo
from selfrefine.objectives.reinforce import reinforce
from selfrefine.objectives.rloo import rloo

LOG2, LOG3 = math.log(2), math.log(3)
BOTH_WAYS = pytest.approx(((2 - LOG2 - 1) + (1 / 3 + LOG3 - 1)) / 2)
"""The mean nats a token from what sampled, where half the ratios are 2 and half 1/3."""


def own(name: str, **more: Any) -> Any:
    clip = {"clip_high": 0.5} if name == "reinforce" else {"clip_low": 0.2, "clip_high": 0.5}
    return settings(name, **clip, **more)


@pytest.mark.parametrize("objective", [reinforce, rloo])
def test_fresh_samples_give_the_plain_policy_gradient(objective: object) -> None:
    """At ratio 1 the gradient of each token is -A / N: REINFORCE."""
    rows = [leaf(-1.0, -2.0), leaf(-0.5)]
    items = [
        item(2, advantage=0.6, old_logprobs=(-1.0, -2.0)),
        item(1, advantage=-0.6, old_logprobs=(-0.5,)),
    ]
    loss = objective(rows, batch(items, own("rloo")))  # type: ignore[operator]
    assert gradients(loss.value, rows).tolist() == pytest.approx([-0.3, -0.3, 0.3])
    assert loss.metrics == {"ratio_max": pytest.approx(1.0), "clip_share": 0.0, "kl": 0.0}


def test_grpo_on_fresh_samples_by_hand() -> None:
    """Tokens: -A / 3 each. Sequences: -A / (2 * own length)."""
    rows = [leaf(-1.0, -2.0), leaf(-0.5)]
    items = [
        item(2, advantage=0.6, old_logprobs=(-1.0, -2.0)),
        item(1, advantage=-0.3, old_logprobs=(-0.5,)),
    ]
    by_tokens = grpo(rows, batch(items, own("grpo"))).value
    assert by_tokens.item() == pytest.approx(-(0.6 + 0.6 - 0.3) / 3)
    assert gradients(by_tokens, rows).tolist() == pytest.approx([-0.2, -0.2, 0.1])
    by_sequences = grpo(rows, batch(items, own("grpo", normalise="sequences"))).value
    assert by_sequences.item() == pytest.approx(-(0.6 - 0.3) / 2)
    assert gradients(by_sequences, rows).tolist() == pytest.approx([-0.15, -0.15, 0.15])


def test_the_clip_is_asymmetric_and_only_takes_what_would_go_further() -> None:
    """Ratios 2 and 1/3 against the band 0.8 to 1.5.

    Up with A > 0 and down with A < 0 are clipped: no gradient. The other two ways back stay free.
    """
    up, down = (-1.0 - LOG2,), (-1.0 + LOG3,)  # old logprobs of a token that now has -1
    rows = [leaf(-1.0), leaf(-1.0), leaf(-1.0), leaf(-1.0)]
    items = [
        item(1, advantage=1.0, old_logprobs=up),
        item(1, advantage=-1.0, old_logprobs=up),
        item(1, advantage=1.0, old_logprobs=down),
        item(1, advantage=-1.0, old_logprobs=down),
    ]
    for objective in (grpo, rloo):  # answers of one token: the ratio of the token is that of the answer
        loss = objective(rows, batch(items, own("grpo")))
        assert loss.value.item() == pytest.approx((-1.5 + 2 - 1 / 3 + 0.8) / 4)
        assert gradients(loss.value, rows).tolist() == pytest.approx([0, 2 / 4, -1 / 3 / 4, 0])
        assert loss.metrics == {
            "ratio_max": pytest.approx(2.0),
            "clip_share": pytest.approx(0.5),
            "kl": BOTH_WAYS,
        }


def test_rloo_weighs_the_whole_answer_where_grpo_weighs_tokens() -> None:
    """Two tokens of ratio 2 and 1/2: the answer's ratio is 1, and nothing is clipped."""
    rows = [leaf(-1.0, -1.0)]
    items = [item(2, advantage=1.0, old_logprobs=(-1.0 - LOG2, -1.0 + LOG2))]
    whole, tokens = rloo(rows, batch(items, own("rloo"))), grpo(rows, batch(items, own("grpo")))
    assert whole.value.item() == pytest.approx(-1.0)
    assert gradients(whole.value, rows).tolist() == pytest.approx([-1.0, -1.0])
    assert tokens.value.item() == pytest.approx(-(1.5 + 0.5) / 2)
    assert gradients(tokens.value, rows).tolist() == pytest.approx([0.0, -0.25])


def test_reinforce_weighs_old_samples_by_what_the_policy_has_become() -> None:
    """Ratio 1/3: the gradient is a third. Ratio 2 is cut at 1.5, and still has a gradient."""
    rows = [leaf(-1.0), leaf(-1.0)]
    items = [
        item(1, advantage=1.0, old_logprobs=(-1.0 + LOG3,)),
        item(1, advantage=-1.0, old_logprobs=(-1.0 - LOG2,)),
    ]
    loss = reinforce(rows, batch(items, own("reinforce")))
    assert gradients(loss.value, rows).tolist() == pytest.approx([-1 / 3 / 2, 1.5 / 2])
    assert loss.metrics == {
        "ratio_max": pytest.approx(2.0),
        "clip_share": pytest.approx(0.5),
        "kl": BOTH_WAYS,
    }


def test_the_kl_term_of_grpo_by_hand() -> None:
    """p_ref / p = 2: 2 - log 2 - 1 nats, whose gradient by log p is 1 - 2."""
    rows = [leaf(-1.0)]
    items = [item(1, old_logprobs=(-1.0,), reference_logprobs=(-1.0 + LOG2,))]
    loss = grpo(rows, batch(items, own("grpo", kl=0.5)))
    assert loss.value.item() == pytest.approx(0.5 * (1 - LOG2))
    assert gradients(loss.value, rows).tolist() == pytest.approx([-0.5])
    assert loss.metrics["kl"] == pytest.approx(1 - LOG2)


def test_without_a_reference_the_kl_is_how_far_the_policy_is_from_what_sampled() -> None:
    """p / p_old = 2: 2 - log 2 - 1 nats. Without it no shipped recipe could ever ring the alarm."""
    items = [item(1, advantage=1.0, old_logprobs=(-1.0 - LOG2,))]
    for name, objective in (("grpo", grpo), ("rloo", rloo), ("reinforce", reinforce)):
        assert name in OBJECTIVES
        assert objective([leaf(-1.0)], batch(items, own(name))).metrics["kl"] == pytest.approx(1 - LOG2)


def test_reinforce_against_float64() -> None:
    """Written from the formula, in NumPy: TRL has no such objective."""
    draw = np.random.default_rng(3)
    rows = ragged(draw.integers(1, 9, 10).tolist(), 4, scale=3.0)
    old, advantages = near(rows, 5, 0.6), draw.normal(size=10)
    items = [
        item(len(row), advantage=float(a), old_logprobs=o)
        for row, a, o in zip(rows, advantages, old, strict=True)
    ]
    loss = reinforce(rows, batch(items, own("reinforce")))
    now = np.array([row.detach().numpy().astype(np.float64).sum() for row in rows])
    ratios = np.exp(now - np.array([np.sum(o) for o in old]))
    weights = np.minimum(1.5, ratios) * advantages / 10
    assert loss.value.item() == pytest.approx(-(weights * now).sum(), rel=1e-5)
    expected = np.concatenate([np.full(len(row), -w) for row, w in zip(rows, weights, strict=True)])
    np.testing.assert_allclose(gradients(loss.value, rows).numpy(), expected, rtol=1e-4)
    assert loss.metrics["clip_share"] == pytest.approx((ratios > 1.5).mean()) != 0.0


@pytest.mark.parametrize("objective", [rloo, grpo, reinforce])
def test_a_ratio_beyond_float32_is_clipped_and_not_a_gradient_of_nan(objective: object) -> None:
    """An answer that has become e^100 times as probable: the gradient is 0, not 0 times infinity."""
    rows = [leaf(-0.1)]
    items = [item(1, advantage=1.0, old_logprobs=(-100.1,))]
    loss = objective(rows, batch(items, own("grpo")))  # type: ignore[operator]
    assert math.isfinite(loss.value.item()) and math.isfinite(loss.metrics["ratio_max"])
    (gradient,) = gradients(loss.value, rows).tolist()
    assert gradient == (pytest.approx(-1.5) if objective is reinforce else 0.0)
