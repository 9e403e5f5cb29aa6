"""Matrix products of frozen float32 weights through oneDNN on a CPU.

torch.nn.functional.linear goes to MKL there, which on processors of other makers than its own runs at less
than half of what they can do: measured on an AMD EPYC with AVX-512, one thread, [256, 576] x [576, 1536]: MKL
108, oneDNN 247 GFLOP/s, with results that differ by 1e-6 relative. oneDNN takes the weight as it lies,
transposed too, so nothing is packed or copied, and a weight that changes (a merged adapter) is never out of
date.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from selfrefine.compute.plain import plain

LEAST_ROWS = 3
"""Below this a product is bound by reading the weight, which MKL does as fast."""


def install(model: Any) -> None:
    """Let every plain linear layer of `model` compute through `product`. Does nothing on other devices."""
    if plain() or not available() or model.device.type != "cpu":
        return
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__dict__["forward"] = functools.partial(_forward, module)


def available() -> bool:
    """Is torch built with the oneDNN operator this uses."""
    return bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _forward(module: torch.nn.Linear, x: Tensor) -> Tensor:
    return product(x, module.weight, module.bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] times weight [out, in] transposed, plus bias: [..., out]. Differentiable in x.

    Weights that want gradients, other dtypes and single rows take torch's own way.
    """
    fits = x.dtype == weight.dtype == torch.float32 and x.numel() >= LEAST_ROWS * x.shape[-1]
    if not fits or weight.requires_grad or (bias is not None and bias.requires_grad):
        return torch.nn.functional.linear(x, weight, bias)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Product.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]
    return onednn(x, weight, bias)


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] times weight [out, in] transposed. No autograd: for use inside a function of its own."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


class _Product(torch.autograd.Function):
    """Keeps the weight only: its own gradient is never asked for, so x is not needed again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return onednn(grad.contiguous(), weight.t(), None), None, None
