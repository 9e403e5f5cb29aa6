"""A frozen linear layer and its LoRA as one operation.

    y = x W^T + b + s (x A^T) B^T

Source: Hu et al. 2021, LoRA, eq. 3. peft makes this from five operations on tensors of the layer's output
size, and autograd keeps some of them; here the low-rank part is added in place, forwards and backwards.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor

from selfrefine.compute.plain import plain
from selfrefine.compute.products import LEAST_ROWS, available, onednn, product


def install(model: Any) -> None:
    """Let the LoRA layers of a peft model compute through `adapted` wherever they are plain ones."""
    if plain() or not available() or model.device.type != "cpu":
        return
    for module in model.modules():
        if type(module) is LoraLinear:
            module.forward = functools.partial(_forward, module)


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    name = None if args or kwargs else _only_adapter(layer, x)
    if name is None:
        return type(layer).forward(layer, x, *args, **kwargs)  # type: ignore[no-any-return]
    base = layer.base_layer
    return adapted(
        x,
        base.weight,
        base.bias,
        layer.lora_A[name].weight,
        layer.lora_B[name].weight,
        float(layer.scaling[name]),
    )


def _only_adapter(layer: Any, x: Tensor) -> str | None:
    """The one adapter at work, where nothing else than the formula above happens in this layer."""
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(active) != 1 or x.numel() < LEAST_ROWS * x.shape[-1]:
        return None
    (name,) = active
    base, up = layer.base_layer, layer.lora_B[name]
    plain = type(base) is torch.nn.Linear and name not in layer.lora_variant and up.bias is None
    dropout = layer.lora_dropout[name]
    still = isinstance(dropout, torch.nn.Identity) or not layer.training or dropout.p == 0.0
    frozen = not base.weight.requires_grad and (base.bias is None or not base.bias.requires_grad)
    single = x.dtype == base.weight.dtype == up.weight.dtype == torch.float32
    return name if plain and still and frozen and single else None


def adapted(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """x [..., in], weight [out, in], down (A) [r, in], up (B) [out, r] to [..., out].

    Differentiable in x, down and up.
    """
    made: Tensor = _Adapted.apply(  # type: ignore[no-untyped-call]
        x.reshape(-1, x.shape[-1]), weight, bias, down, up, scale
    )
    return made.view(*x.shape[:-1], weight.shape[0])


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        low = onednn(x, down, None)
        out = product(x, weight, bias).addmm_(low, up.t(), alpha=scale)
        ctx.save_for_backward(x, weight, down, up, low)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        x, weight, down, up, low = ctx.saved_tensors
        grad = grad.contiguous()
        low_grad = onednn(grad, up.t(), None).mul_(ctx.scale)
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = product(grad, weight.t(), None).addmm_(low_grad, down)
        return x_grad, None, None, low_grad.t() @ x, (grad.t() @ low).mul_(ctx.scale), None
