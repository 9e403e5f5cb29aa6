"""Products through oneDNN must be the products, forwards and backwards, and leave the rest alone."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from selfrefine.compute import products

pytestmark = pytest.mark.skipif(not products.available(), reason="this torch has no oneDNN")


def leaves(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    torch.manual_seed(3)
    return [torch.randn(shape) for shape in shapes]


@pytest.mark.parametrize("rows", [(1,), (2,), (7,), (2, 5), (1, 1), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradient_are_those_of_float64(rows: tuple[int, ...], bias: bool) -> None:
    x, weight, b, upstream = leaves((*rows, 48), (30, 48), (30,), (*rows, 30))
    x.requires_grad_(True)
    out = products.product(x, weight, b if bias else None)
    out.backward(upstream)
    exact = x.detach().double() @ weight.double().T + (b.double() if bias else 0.0)
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), upstream.double() @ weight.double(), rtol=1e-5, atol=1e-5)


def test_an_upstream_gradient_that_is_not_contiguous_counts_as_it_stands() -> None:
    """The gradient of a transposed or expanded output arrives with strides of its own."""
    x, weight = leaves((6, 48), (30, 48))
    x.requires_grad_(True)
    products.product(x, weight, None).t().sum(0, keepdim=True).expand(4, -1).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (4.0 * weight.sum(0)).expand(6, -1), rtol=1e-5, atol=1e-5)


def test_a_weight_that_wants_a_gradient_gets_one() -> None:
    x, weight = leaves((6, 48), (30, 48))
    weight.requires_grad_(True)
    products.product(x, weight, None).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(30, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_whole_model_computes_the_same(kind: str) -> None:
    plain, fast = tiny.model(kind), tiny.model(kind)
    products.install(fast)
    ids = torch.arange(5, 35).view(3, 10)
    torch.testing.assert_close(fast(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-5)


def test_a_weight_that_was_exchanged_is_used_at_once() -> None:
    """A merge puts another tensor in the weight's place: something packed before would be the old policy."""
    model = tiny.model()
    products.install(model)
    layer: Any = model.model.layers[0].mlp.gate_proj
    (x,) = leaves((9, 32))
    before = layer(x)
    layer.weight.data = layer.weight.data * 2.0
    torch.testing.assert_close(layer(x), 2.0 * before)
