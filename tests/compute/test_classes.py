"""k tokens and the rest as one class: the numbers and gradients of a full softmax, without its table."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tiny
import torch
from wrapping import gradients, off, wrapped

from selfrefine.compute import classes, forward, head
from selfrefine.compute.forward import class_logprobs, completion_logprobs, top_classes


def table(positions: int, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(positions + k)
    ids = torch.rand(positions, 40).argsort(-1)[:, :k]
    hidden = torch.randn(positions, 12).requires_grad_(True)
    return hidden, torch.randn(40, 12), torch.randn(40), ids


def by_softmax(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Probabilities first, the rest summed over who is not asked for."""
    shares = logits.softmax(-1)
    asked = torch.zeros_like(shares, dtype=torch.bool).scatter(-1, ids, True)
    rest = shares.masked_fill(asked, 0.0).sum(-1, keepdim=True)
    return torch.cat((shares.gather(-1, ids), rest), -1).log()


def test_by_hand_on_three_words() -> None:
    """Logits 0, ln 2 and ln 5: 1/8, 2/8 and 5/8. With the last asked for, the rest has 3/8. Its gradient
    is of log(1 + 2) - log 8: 1/3 - 1/8, 2/3 - 2/8 and 0 - 5/8."""
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log().requires_grad_(True)
    found = classes.of_logits(logits, torch.tensor([[2]]))
    assert found.exp().tolist() == [pytest.approx([5 / 8, 3 / 8])]
    found[0, 1].backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([1 / 3 - 1 / 8, 2 / 3 - 2 / 8, -5 / 8])
    # The same through a head whose weights are these logits, and whose one feature is 1.
    hidden = torch.ones(1, 1, requires_grad=True)
    picked = classes.picked(hidden, logits.detach().T.contiguous(), None, torch.tensor([[2]]))
    picked[0, 1].backward()
    assert picked.tolist() == [pytest.approx(found[0].tolist())]
    assert hidden.grad is not None
    slope = (2 / 3 - 2 / 8) * math.log(2) - 5 / 8 * math.log(5)
    assert hidden.grad.item() == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("positions", [0, 1, 128, 300])
@pytest.mark.parametrize("k", [1, 7, 39])
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradient_are_those_of_a_softmax_in_float64(positions: int, k: int, biased: bool) -> None:
    hidden, weight, bias, ids = table(positions, k)
    found = classes.picked(hidden, weight, bias if biased else None, ids)
    each = torch.randn(positions, k + 1)  # a weight of its own for each, so that mixed-up ones show
    (found * each).sum().backward()
    exact = hidden.detach().double().requires_grad_(True)
    expected = by_softmax(exact @ weight.double().T + (bias.double() if biased else 0.0), ids)
    (expected * each.double()).sum().backward()
    assert found.shape == (positions, k + 1)
    assert hidden.grad is not None and exact.grad is not None
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(hidden.grad.double(), exact.grad, rtol=1e-4, atol=1e-4)


def test_a_rest_of_next_to_nothing_is_no_rounding() -> None:
    """1 minus the others is 0 here, and its logarithm infinite: the rest is e^-20 and e^-20 more."""
    logits = torch.tensor([[20.0, 0.0, 0.0]], requires_grad=True)
    found = classes.of_logits(logits, torch.tensor([[0]]))
    assert found[0, 1].item() == pytest.approx(math.log(2) - 20, abs=1e-5)
    found[0, 1].backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([-1.0, 0.5, 0.5], abs=1e-6)


def test_where_all_are_asked_for_nothing_is_left_and_the_gradient_is_finite() -> None:
    hidden, weight, bias, ids = table(5, 40)
    found = classes.picked(hidden, weight, bias, ids)
    assert found[:, -1].isneginf().all()
    found[:, :-1].sum().backward()
    assert hidden.grad is not None and hidden.grad.isfinite().all()


def test_the_entropy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[torch.Tensor] = []
    monkeypatch.setattr(head, "listeners", [told.append])
    hidden, weight, bias, ids = table(130, 3)
    classes.picked(hidden, weight, bias, ids)
    logprobs = (hidden.detach() @ weight.T + bias).log_softmax(-1)
    torch.testing.assert_close(torch.cat(told), -(logprobs.exp() * logprobs).sum(-1), rtol=1e-4, atol=1e-5)


PAIRS = [
    ((*range(100, 110), 1), (5, 6, 7)),
    ((*range(100, 110), 1), (8,)),
    ((*range(100, 110), 1), ()),
    ((*range(100, 110), 2, 3), (5, 6, 7, 8, 9)),
]


def summed(rows: list[torch.Tensor]) -> torch.Tensor:
    """Every number with a weight of its own."""
    flat = torch.cat([row.flatten() for row in rows])
    return (flat * torch.linspace(-1, 2, len(flat))).sum()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "gemma2"])
def test_shared_rows_teach_what_separate_rows_do(kind: str) -> None:
    """gemma2 has a cap after its head, and so keeps its logits."""
    model = wrapped(kind).eval()  # gpt2 drops while it trains
    ids = [
        torch.tensor([[i, 20 + i, 3] for i in answer], dtype=torch.long).view(-1, 3) for _, answer in PAIRS
    ]
    found = class_logprobs(model, PAIRS, ids)
    assert [row.shape for row in found] == [(3, 4), (1, 4), (0, 4), (5, 4)]
    summed(found).backward()
    together = gradients(model)
    model.zero_grad()
    alone = [class_logprobs(model, [pair], [own])[0] for pair, own in zip(PAIRS, ids, strict=True) if pair[1]]
    summed(alone).backward()
    assert max(off(together, gradients(model)).values()) < 1e-4
    assert forward.shares_rows(model, PAIRS) or kind == "gemma2"
    # The first of the ids is the answer's own token: the same number, by the way that asks for it alone.
    with torch.no_grad():
        for row, one in zip(found, completion_logprobs(model, PAIRS), strict=True):
            torch.testing.assert_close(row[:, 0], one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_the_likeliest_tokens_by_the_models_own_logits(kind: str) -> None:
    model: Any = tiny.model(kind)
    found = top_classes(model, PAIRS, 6)
    for (prompt, answer), (ids, logprobs) in zip(PAIRS, found, strict=True):
        assert ids.shape == (len(answer), 6) and logprobs.shape == (len(answer), 7)
        for place in range(len(answer)):
            seen = torch.tensor([[*prompt, *answer[:place]]])
            with torch.no_grad():
                best = model(seen).logits[0, -1].log_softmax(-1).topk(6)
            assert ids[place].tolist() == best.indices.tolist()
            assert logprobs[place, :6].tolist() == pytest.approx(best.values.tolist(), abs=1e-4)
            assert logprobs[place].exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    every = top_classes(model, PAIRS[:1], 1000)[0]
    assert every[0].shape == (3, 303) and every[1][:, -1].isneginf().all()
