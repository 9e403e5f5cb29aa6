"""The SFT loss by hand."""

from __future__ import annotations

import pytest
import torch

from selfrefine.objectives.base import Batch, Item
from selfrefine.objectives.sft import sft


def item(tokens: int) -> Item:
    return Item(id="x", prompt_token_ids=(1,), completion_token_ids=(2,) * tokens)


def test_every_token_of_the_step_counts_alike() -> None:
    """Rows of 2 and 1 tokens: (1 + 2 + 3) / 3 = 2, not the mean of row means (1.5 + 3) / 2 = 2.25."""
    rows = [torch.tensor([-1.0, -2.0], requires_grad=True), torch.tensor([-3.0], requires_grad=True)]
    loss = sft(rows, Batch([item(2), item(1)], 2, 3))
    assert loss.value.item() == pytest.approx(2.0)
    loss.value.backward()
    for row in rows:
        assert row.grad is not None and row.grad.tolist() == pytest.approx([-1 / 3] * len(row))


def test_micro_batches_add_up_to_the_step() -> None:
    """Dividing by the micro-batch's own tokens would make the loss depend on the token budget."""
    first = sft([torch.tensor([-1.0, -2.0])], Batch([item(2)], 2, 3))
    second = sft([torch.tensor([-3.0])], Batch([item(1)], 2, 3))
    assert first.value.item() + second.value.item() == pytest.approx(2.0)
