"""A tiny model with an adapter that already says something, and how far its gradients are from others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tiny
import torch

from selfrefine.compute import lora
from selfrefine.config import LoraConfig


def wrapped(kind: str = "llama", changes: Mapping[str, Any] | None = None, **settings: Any) -> Any:
    """A PeftModel whose A and B are random. `changes`: to the base; `settings`: to the adapter."""
    made = lora.attach_new(tiny.model(kind, **changes or {}), LoraConfig(r=4, alpha=12, **settings), 1)
    torch.manual_seed(2)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide everything that A does
            parameter.data = 0.3 * torch.randn(parameter.shape)
    return made


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def off(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The relative error of each tensor by that tensor's own norm; what is to be zero must be, and is left
    out."""
    assert found.keys() == expected.keys()
    norms = {name: float(one.norm()) for name, one in expected.items()}
    assert not any(found[name].any() for name, norm in norms.items() if not norm)
    return {n: float((found[n] - expected[n]).norm()) / norm for n, norm in norms.items() if norm}
