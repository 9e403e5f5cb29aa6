"""A next-token distribution as k + 1 classes: the k tokens that are asked for, and all others as one.

Legend: N positions, c of them at once, V vocabulary, D hidden size, k tokens asked for at a position.

With logits l, Z the sum of all exp(l_v) and R that of the tokens not asked for, the classes have the nats
l_j - log Z and log R - log Z. R is summed and not 1 minus the others: where k tokens have nearly all the mass
that difference is rounding, and a gradient through its logarithm would be noise. With g the gradient of the
classes and G its sum, that of the logits is

    g_v - G exp(l_v) / Z                  of a token asked for
    (g_rest / R - G / Z) exp(l_v)         of all others

The N x V table never exists: its rows are made some at a time, and made again for the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from selfrefine.compute import head
from selfrefine.compute.products import product

LEAST = -80.0
"""Nats of the rest from which on it is not divided by: 1/R would be infinite in float32."""


def of_logits(logits_NV: Tensor, ids_Nk: Tensor) -> Tensor:
    """Nats [N, k + 1]: of `ids_Nk`, distinct in a row, and of the rest (-inf where nothing is left)."""
    total_N1 = logits_NV.logsumexp(-1, keepdim=True)
    asked_Nk = logits_NV.gather(-1, ids_Nk)
    if ids_Nk.shape[-1] < logits_NV.shape[-1]:
        rest_N1 = logits_NV.scatter(-1, ids_Nk, -math.inf).logsumexp(-1, keepdim=True)
    else:
        rest_N1 = torch.full_like(total_N1, -math.inf)
    return torch.cat((asked_Nk, rest_N1), dim=-1) - total_N1


def top(logits_NV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k likeliest tokens [N, k], best first (at most V), and `of_logits` of them."""
    ids_Nk = logits_NV.topk(min(k, logits_NV.shape[-1]), dim=-1).indices
    return ids_Nk, of_logits(logits_NV, ids_Nk)


def by_chunks(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, read: Callable[[Tensor], Tensor]
) -> Tensor:
    """What `read` makes of the logits [c, V] of all positions, one below the other. No autograd."""
    # Of no positions once, too: `read` knows how wide its rows are.
    starts = range(0, max(1, len(hidden_ND)), head.ROWS)
    parts = (hidden_ND[at : at + head.ROWS] for at in starts)
    return torch.cat([read(product(part, weight_VD, bias_V).float()) for part in parts])


class _Picked(torch.autograd.Function):
    """`of_logits` of a linear head; saves the hidden states and its own result."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, ids_Nk: Tensor
    ) -> Tensor:
        ids = iter(torch.split(ids_Nk, head.ROWS))

        def read(logits_cV: Tensor) -> Tensor:
            head.tell(logits_cV)
            return of_logits(logits_cV, next(ids))

        found_Nm = by_chunks(hidden_ND, weight_VD, bias_V, read)
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, ids_Nk, found_Nm)
        return found_Nm

    @staticmethod
    def backward(ctx: Any, grad_Nm: Tensor) -> tuple[Tensor, None, None, None]:
        hidden_ND, weight_VD, bias_V, ids_Nk, found_Nm = ctx.saved_tensors
        slopes_ND = torch.empty_like(hidden_ND)
        for at in range(0, len(hidden_ND), head.ROWS):
            part = slice(at, at + head.ROWS)
            table_cV = product(hidden_ND[part], weight_VD, bias_V).float()
            table_cV -= table_cV.logsumexp(-1, keepdim=True)
            shares_cV = table_cV.exp_()
            ids_ck, asked_ck, rest_c1 = ids_Nk[part], grad_Nm[part, :-1], grad_Nm[part, -1:]
            all_c1 = grad_Nm[part].sum(-1, keepdim=True)
            known_ck = asked_ck - all_c1 * shares_cV.gather(-1, ids_ck)
            shares_cV *= rest_c1 * (-found_Nm[part, -1:].clamp(min=LEAST)).exp() - all_c1
            shares_cV.scatter_(-1, ids_ck, known_ck)
            # One product of the whole, as autograd has it: in half precision a difference of two would be
            # mostly rounding where teacher and student nearly agree.
            slopes_ND[part] = product(shares_cV.to(weight_VD.dtype), weight_VD.t(), None)
            del table_cV, shares_cV
        return slopes_ND, None, None, None


def picked(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, ids_Nk: Tensor) -> Tensor:
    """`of_logits` of a frozen linear head, given its hidden states. Differentiable in hidden_ND."""
    found: Tensor = _Picked.apply(hidden_ND, weight_VD, bias_V, ids_Nk)  # type: ignore[no-untyped-call]
    return found
