"""Completions of given logprobs, and the items that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfrefine.objectives import OBJECTIVES
from selfrefine.objectives.base import Batch, Item


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, requires_grad=True)


def item(tokens: int, **fields: Any) -> Item:
    own: dict[str, Any] = {"id": "x", "prompt_token_ids": (1,), "completion_token_ids": (2,) * tokens}
    return Item(**own | fields)


def settings(name: str, **given: Any) -> Any:
    """The objective's settings, those not given at their defaults."""
    return OBJECTIVES.get(name).settings(**given)


def batch(items: Sequence[Item], own: Any = None, *, z0: float = 0.0) -> Batch:
    """A step that is one micro-batch."""
    return Batch(items, len(items), sum(len(i.completion_token_ids) for i in items), own, z0)


def ragged(lengths: Sequence[int], seed: int, scale: float = 1.0) -> list[Tensor]:
    """Logprobs of completions of these lengths: negative, leaves."""
    draw = np.random.default_rng(seed)
    return [torch.tensor(-draw.random(n) * scale, dtype=torch.float32).requires_grad_() for n in lengths]


def near(rows: Sequence[Tensor], seed: int, by: float) -> list[tuple[float, ...]]:
    """Logprobs of another policy: these, moved by up to `by` nats a token."""
    draw = np.random.default_rng(seed)
    return [tuple((row.detach().numpy() + draw.uniform(-by, by, len(row))).tolist()) for row in rows]


def gradients(value: Tensor, rows: Sequence[Tensor]) -> Tensor:
    return torch.cat(torch.autograd.grad(value, rows))
