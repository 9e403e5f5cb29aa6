"""Logprobs under training: padding, the head's positions, and the cutting of micro-batches."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
import torch

from selfrefine.compute.forward import by_budget, completion_logprobs
from selfrefine.compute.head import head_at
from selfrefine.compute.packing import lay_out
from selfrefine.errors import EngineError


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


def test_the_budget_is_of_tokens_that_are_computed() -> None:
    """Ten tokens begin all prompts and count once. A demo's groups of 8 answers came to one a micro-batch,
    half empty, while the common beginning was counted for each."""
    begun = [((1,) * 10 + (k,) * 2, (9,) * 4) for k in (2, 2, 3, 3, 4, 4)]
    assert by_budget(begun, 40) == [[0, 1, 2, 3, 4, 5]]  # 10 + 3 x (2 + 4 + 4)
    assert by_budget(begun, 39) == [[0, 1, 2, 3], [4, 5]]  # 9 are left, the third needs 10 and stays whole
    assert by_budget(begun, 29) == [[0, 1], [2, 3], [4, 5]]
    generator = torch.Generator().manual_seed(3)
    for budget in (25, 60, 140):
        sizes = torch.randint(1, 9, (40, 2), generator=generator).tolist()
        pairs = [((1,) * 10 + (own % 5,) * own, (9,) * answer) for own, answer in sizes]
        cut = by_budget(pairs, budget)
        assert sorted(i for micro in cut for i in micro) == list(range(40))
        assert all(len(lay_out([pairs[i] for i in micro], "cpu")[0].ids) <= budget for micro in cut)


def test_rows_that_are_not_shared_cost_what_padding_makes_of_them() -> None:
    """Two answers to one prompt of 10 are two rows of 12 there, not 14 tokens."""
    pairs = [pair(1, 10, 2), pair(1, 10, 2), pair(2, 3, 1)]
    assert by_budget(pairs, 18) == [[2, 0, 1]]  # 3 + 1 and 10 + 2 x 2; three rows of 12 are 36
    assert by_budget(pairs, 36, shared=False) == [[2, 0, 1]]
    assert by_budget(pairs, 35, shared=False) == [[2, 0], [1]]
    assert by_budget(pairs, 1, shared=False) == [[2], [0], [1]]
    assert by_budget([((), ())], 5) == [[0]]  # refused where it is computed, with a sentence
