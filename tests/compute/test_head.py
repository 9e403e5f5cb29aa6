"""Logprobs without logits: the same numbers and gradients, and only where the head is all there is."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from selfrefine.compute import head
from selfrefine.compute.forward import completion_logprobs


def table(positions: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    hidden, weight, bias = torch.randn(positions, 12), torch.randn(40, 12), torch.randn(40)
    return hidden.requires_grad_(True), weight, bias, torch.randint(0, 40, (positions,))


@pytest.mark.parametrize("positions", [0, 1, 127, 128, 129, 300])
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradient_are_log_softmax_in_float64(positions: int, biased: bool) -> None:
    hidden, weight, bias, targets = table(positions)
    found = head.picked(hidden, weight, bias if biased else None, targets)
    each = torch.linspace(
        -1, 2, positions
    )  # a weight of its own for each position, so that mixed-up ones show
    (found * each).sum().backward()
    exact = hidden.detach().double().requires_grad_(True)
    logits = exact @ weight.double().T + (bias.double() if biased else 0.0)
    expected = logits.log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    (expected * each.double()).sum().backward()
    assert hidden.grad is not None and exact.grad is not None
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


def test_by_hand_on_two_words() -> None:
    """Logits 0 and ln 3: probabilities 1/4 and 3/4."""
    hidden = torch.tensor([[1.0]], requires_grad=True)
    weight = torch.tensor([[0.0], [3.0]]).log().nan_to_num(neginf=0.0)  # rows 0 and ln 3
    found = head.picked(hidden, weight, None, torch.tensor([1]))
    found.sum().backward()
    assert found.item() == pytest.approx(-0.287682, abs=1e-5)  # ln 3/4
    assert hidden.grad is not None
    assert hidden.grad.item() == pytest.approx(1.098612 * 0.25, abs=1e-5)  # ln 3 - 3/4 ln 3


def test_logits_far_apart_do_not_overflow() -> None:
    hidden, weight, _, targets = table(3)
    found = head.picked(hidden * 1e4, weight, None, targets)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("learns", [True, False])
def test_a_token_that_can_never_come_adds_nothing_to_the_entropy(
    learns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap: 0 times -inf is not a number, and one makes the whole step's entropy none."""
    hidden, weight, bias, targets = table(129)  # two chunks
    bias[7] = -torch.inf
    targets[targets == 7] = 8
    told: list[torch.Tensor] = []
    monkeypatch.setattr(head, "listeners", [told.append])
    found = head.picked(hidden if learns else hidden.detach(), weight, bias, targets)
    assert [len(chunk) for chunk in told] == [128, 1]
    exact = hidden.detach().double()
    logprobs = (exact @ weight.double().T + bias.double()).log_softmax(-1)
    possible = logprobs[:, torch.arange(40) != 7]
    entropies = torch.cat(told)
    assert torch.isfinite(entropies).all()
    torch.testing.assert_close(entropies.double(), -(possible.exp() * possible).sum(-1), rtol=1e-5, atol=1e-5)
    expected = logprobs.gather(-1, targets[:, None]).squeeze(-1)
    torch.testing.assert_close(found.detach().double(), expected, rtol=1e-5, atol=1e-5)
    if learns:
        found.sum().backward()
        assert hidden.grad is not None and torch.isfinite(hidden.grad).all()


def test_entropy_by_hand_beside_a_token_that_can_never_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits 0, ln 3 and -inf: 1/4 ln 4 + 3/4 ln 4/3."""
    told: list[torch.Tensor] = []
    monkeypatch.setattr(head, "listeners", [told.append])
    hidden, weight = torch.zeros(3, 1), torch.zeros(3, 1)
    head.picked(hidden, weight, torch.tensor([0.0, 1.0986123, -torch.inf]), torch.tensor([0, 1, 1]))
    assert told[0].tolist() == pytest.approx([0.5623351] * 3, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "plain"),
    [("llama", True), ("qwen2", True), ("gpt2", True), ("gemma2", False), ("mistral", True)],
)
def test_a_soft_cap_after_the_head_is_found_out(kind: str, plain: bool) -> None:
    """The cap stands in the model's code and its configuration under a name of its own."""
    assert head.gives_logits(tiny.model(kind)) is plain


def test_a_head_that_learns_is_left_alone() -> None:
    model = tiny.model()
    model.lm_head.weight.requires_grad_(True)
    assert not head.gives_logits(model)
    (row,) = completion_logprobs(model, [((5, 6), (7, 8))])
    row.sum().backward()
    assert model.lm_head.weight.grad is not None


def test_finding_out_uses_no_random_number_and_leaves_the_mode() -> None:
    model = tiny.model().train()
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    assert head.gives_logits(model)
    assert torch.equal(torch.rand(1), expected) and model.training


def test_the_models_own_head_is_back_afterwards_and_after_a_failure() -> None:
    model: Any = tiny.model()
    places = torch.tensor([0])
    with pytest.raises(RuntimeError), head.picking(model, places, places, places):
        raise RuntimeError("out of memory")
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 303)
