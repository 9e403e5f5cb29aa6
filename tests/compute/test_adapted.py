"""A layer and its LoRA in one operation must be what peft computes in five, and step aside elsewhere."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch
from wrapping import gradients, off, wrapped

from selfrefine.compute import adapted, products

pytestmark = pytest.mark.skipif(not products.available(), reason="this torch has no oneDNN")

IDS = torch.arange(5, 29).view(2, 12)


def as_peft_does(model: Any) -> Any:
    other = copy.deepcopy(model)
    for module in other.modules():
        module.__dict__.pop("forward", None)
    return other


def taught(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(7)  # dropout, where there is one
    logits = model(IDS).logits
    (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    return gradients(model)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_logits_and_every_gradient_are_pefts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    inner = adapted.adapted
    monkeypatch.setattr(adapted, "adapted", lambda *a: (calls.append(None), inner(*a))[1])
    model = wrapped(kind)
    plain = as_peft_does(model)
    torch.testing.assert_close(model(IDS).logits, plain(IDS).logits, rtol=1e-4, atol=1e-5)
    found, expected = taught(model), taught(plain)
    errors = off(found, expected)
    assert len(errors) == 2 * 2 * 7 and max(errors.values()) < 1e-5
    assert len(calls) == 2 * 14


def test_the_base_alone_and_another_adapter_are_what_peft_makes_of_them() -> None:
    model = wrapped()
    model.add_adapter("other", model.peft_config["default"])
    plain = as_peft_does(model)
    for which in (model, plain):
        which.set_adapter("other")
    torch.testing.assert_close(model(IDS).logits, plain(IDS).logits, rtol=1e-4, atol=1e-5)
    with model.disable_adapter():
        torch.testing.assert_close(model(IDS).logits, tiny.model()(IDS).logits, rtol=1e-4, atol=1e-5)


def test_dropout_draws_what_peft_draws() -> None:
    model = wrapped(dropout=0.5).train()
    found, expected = taught(model), taught(as_peft_does(model))
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)


def test_unloading_leaves_the_plain_model() -> None:
    model = wrapped()
    base = model.unload()
    torch.testing.assert_close(base(IDS).logits, tiny.model()(IDS).logits, rtol=1e-4, atol=1e-5)
