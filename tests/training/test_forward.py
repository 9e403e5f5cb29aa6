"""Logprobs under training: padding, the head's positions, and the cutting of micro-batches."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
import torch

from selfrefine.errors import EngineError
from selfrefine.training.forward import by_budget, completion_logprobs
from selfrefine.training.head import head_at


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3"])
def test_right_padding_does_not_leak_into_values_or_gradients(kind: str) -> None:
    """Id 0 pads and is also a token of the row: a mask made by comparing ids would hide it."""
    model = tiny.model(kind).requires_grad_(True)
    short, long = ((5, 0, 0), (0, 9)), ((7,) * 20, (8,) * 15)
    grads = []
    for company in ([short], [short, long]):
        model.zero_grad()
        row = completion_logprobs(model, company)[0]
        row.sum().backward()  # type: ignore[no-untyped-call]
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        if len(company) == 1:
            alone = row.detach()
    torch.testing.assert_close(row.detach(), alone, atol=1e-5, rtol=0)
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    with torch.no_grad():
        table = model(torch.tensor([[5, 0, 0, 0, 9]])).logits[0].log_softmax(-1)
    assert alone.tolist() == pytest.approx([table[2, 0].item(), table[3, 9].item()], abs=1e-5)


def test_the_head_is_computed_at_completion_positions_only() -> None:
    """Most of the memory of a step is vocabulary x positions. A soft cap after the head keeps it from being
    fused, and even then only the five positions count."""
    pairs = [((1,) * 30, (2, 3)), ((1,), (2, 3, 4))]
    capped = tiny.model("gemma2")
    completion_logprobs(capped, pairs)  # which head this is, is found out by a pass over two tokens
    seen: list[torch.Size] = []
    capped.lm_head.register_forward_hook(lambda module, inputs, out: seen.append(out.shape))
    completion_logprobs(capped, pairs)
    assert seen == [(1, 5, 303)]
    capped(torch.tensor([[1, 2, 3]]))  # and the hook is gone
    assert seen[-1] == (1, 3, 303)


def test_the_hook_goes_away_when_the_model_fails() -> None:
    model = tiny.model()
    with pytest.raises(RuntimeError), head_at(model, torch.tensor([0]), torch.tensor([0])):
        raise RuntimeError("out of memory")
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 303)


def test_a_model_without_a_head_is_named() -> None:
    headless = SimpleNamespace(get_output_embeddings=lambda: None)
    with (
        pytest.raises(EngineError, match="no output head"),
        head_at(headless, torch.tensor([0]), torch.tensor([0])),
    ):
        pass


def pair(prompt: int, length: int, completion: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return ((prompt,) * length, (9,) * completion)


def test_micro_batches_by_hand() -> None:
    # A prompt of 3 with two completions of 2 costs 7, another of 4 with one of 1 costs 5: 12 in all.
    pairs = [pair(1, 3, 2), pair(2, 4, 1), pair(1, 3, 2)]
    assert by_budget(pairs, 12) == [[0, 2, 1]]
    assert by_budget(pairs, 11) == [[0, 2], [1]]
    # A group over the budget is split, and each part pays for the prompt.
    assert by_budget([pair(1, 3, 2)] * 4, 7) == [[0, 1], [2, 3]]
    assert by_budget([pair(1, 3, 2)] * 3, 1) == [[0], [1], [2]]
    assert by_budget([], 12) == []
