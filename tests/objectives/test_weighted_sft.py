"""Weights from rewards: by hand, and against a float64 reference written from the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rows import batch, gradients, item, leaf, ragged

from selfrefine.objectives.sft import sft
from selfrefine.objectives.weighted_sft import WeightedSettings, weighted_sft, weights


def own(**settings: object) -> WeightedSettings:
    return WeightedSettings(**settings)  # type: ignore[arg-type]


def test_the_loss_by_hand() -> None:
    """Rows of 2 and 1 tokens, weights 0.5 and 2: (0.5 * (1 + 2) + 2 * 3) / 3 tokens = 2.5."""
    rows = [leaf(-1.0, -2.0), leaf(-3.0)]
    loss = weighted_sft(rows, batch([item(2, weight=0.5), item(1, weight=2.0)], own()))
    assert loss.value.item() == pytest.approx(2.5)
    assert gradients(loss.value, rows).tolist() == pytest.approx([-0.5 / 3, -0.5 / 3, -2 / 3])
    assert loss.metrics == {"weight": pytest.approx(1.25)}


def test_with_equal_weights_it_is_sft() -> None:
    rows = ragged([3, 1, 5], 0)
    items = [item(len(row)) for row in rows]
    weighted, plain = weighted_sft(rows, batch(items, own())).value, sft(rows, batch(items, own())).value
    assert weighted.item() == pytest.approx(plain.item(), rel=1e-6)


def scored(*rewards: float) -> list[object]:
    return [item(1, id=str(i), group="g", reward=reward) for i, reward in enumerate(rewards)]


def test_weights_by_hand() -> None:
    """Rewards 0, 0.5, 1 of one group: its mean is 0.5."""

    def found(**settings: object) -> dict[str, float]:
        return {i.id: i.weight for i in weights(scored(0.0, 0.5, 1.0), own(**settings))}  # type: ignore[arg-type]

    assert found(weights="reward") == {"1": 0.5, "2": 1.0}  # a row of weight 0 is left out
    assert found(weights="filter") == {"2": 1.0}  # above its group's mean, not at it
    assert found(weights="exponential", weight_temperature=0.5) == pytest.approx(
        {"0": math.exp(-1), "1": 1.0, "2": math.e}
    )
    # exp(0.5 / 1e-4) overflows a float: the cap of 20 comes first.
    assert found(weights="exponential", weight_temperature=1e-4)["2"] == pytest.approx(20.0)


def test_the_baseline_is_the_groups_own() -> None:
    """0.4 is good for a hard task and bad for an easy one: a mean over all rows would call it average."""
    hard = [item(1, id=f"h{i}", group="hard", reward=r) for i, r in enumerate((0.0, 0.4))]
    easy = [item(1, id=f"e{i}", group="easy", reward=r) for i, r in enumerate((0.4, 1.0))]
    kept = weights([*hard, *easy], own(weights="filter"))
    assert [i.id for i in kept] == ["h1", "e1"]


@pytest.mark.parametrize("kind", ["reward", "exponential"])
def test_against_float64(kind: str) -> None:
    draw = np.random.default_rng(1)
    lengths, rewards = draw.integers(1, 9, 12).tolist(), draw.random(12).tolist()
    rows = ragged(lengths, 2, scale=4.0)
    items = [item(n, group=f"g{i % 3}", reward=rewards[i]) for i, n in enumerate(lengths)]
    settings = own(weights=kind, weight_temperature=0.3)
    loss = weighted_sft(rows, batch(weights(items, settings), settings)).value
    total = np.array([row.detach().numpy().astype(np.float64).sum() for row in rows])
    means = np.array([np.mean([rewards[j] for j in range(12) if j % 3 == i % 3]) for i in range(12)])
    w = np.array(rewards) if kind == "reward" else np.exp((np.array(rewards) - means) / 0.3)
    assert loss.item() == pytest.approx(-(w * total).sum() / sum(lengths), rel=1e-5)
    expected = np.concatenate([np.full(n, -w[i] / sum(lengths)) for i, n in enumerate(lengths)])
    np.testing.assert_allclose(gradients(loss, rows).numpy(), expected, rtol=1e-4)
