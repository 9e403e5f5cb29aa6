"""A layer and its LoRA in one operation must be what peft computes in five, and step aside elsewhere."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch

from selfrefine.config import LoraConfig
from selfrefine.training import adapted, lora, products

pytestmark = pytest.mark.skipif(not products.available(), reason="this torch has no oneDNN")

IDS = torch.arange(5, 29).view(2, 12)


def wrapped(kind: str = "llama", **settings: Any) -> Any:
    made = lora.attach_new(tiny.model(kind), LoraConfig(r=4, alpha=12, **settings), 1)
    torch.manual_seed(2)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide everything that A does
            parameter.data = 0.3 * torch.randn(parameter.shape)
    return made


def as_peft_does(model: Any) -> Any:
    other = copy.deepcopy(model)
    for module in other.modules():
        module.__dict__.pop("forward", None)
    return other


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(7)  # dropout, where there is one
    logits = model(IDS).logits
    (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_logits_and_every_gradient_are_pefts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    inner = adapted.adapted
    monkeypatch.setattr(adapted, "adapted", lambda *a: (calls.append(None), inner(*a))[1])
    model = wrapped(kind)
    plain = as_peft_does(model)
    torch.testing.assert_close(model(IDS).logits, plain(IDS).logits, rtol=1e-4, atol=1e-5)
    found, expected = gradients(model), gradients(plain)
    assert found.keys() == expected.keys() and len(found) == 2 * 2 * 7
    for name, gradient in found.items():
        assert float((gradient - expected[name]).norm() / expected[name].norm()) < 1e-5, name
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
    found, expected = gradients(model), gradients(as_peft_does(model))
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)


def test_unloading_leaves_the_plain_model() -> None:
    model = wrapped()
    base = model.unload()
    torch.testing.assert_close(base(IDS).logits, tiny.model()(IDS).logits, rtol=1e-4, atol=1e-5)
