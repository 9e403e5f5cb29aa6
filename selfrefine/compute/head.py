"""A model's head where only the logprobs of known tokens are wanted: no logits are kept.

Legend: N completion tokens, c of them at once, V vocabulary, D hidden size.

With logits_NV = hidden_ND W^T, the logprob of token y is l_y - log sum_v exp(l_v), and its gradient with
respect to the hidden state is (1_y - softmax(l)) W. Both are known once the logits are, so a few rows at a
time are computed, used twice and thrown away: the N x V table, its exponentials and their gradient never
exist. Same arithmetic as autograd's, in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from selfrefine.compute.products import product
from selfrefine.errors import EngineError

ROWS = 128
"""Positions at once: 25 MB of logits with 49,152 tokens, below where every allocation is new pages."""

listeners: list[Callable[[Tensor], None]] = []
"""Told the entropy [c] of each position, nats, chunk by chunk, without gradient (`entropy`)."""

_GIVES_LOGITS = "_selfrefine_head_gives_logits"


TOLD_ROWS = 64
"""Positions at once in `tell`: the whole N x V again would double the memory peak of a step."""


@torch.no_grad()
def tell(logits_NV: Tensor) -> None:
    """The listeners are told the entropies of logits that are kept anyway."""
    for rows_cV in torch.split(logits_NV, TOLD_ROWS) if listeners else ():
        # entr(0) is 0, where p log p of a token that can never come would be 0 times -inf.
        entropies_c = torch.special.entr(rows_cV.softmax(-1)).sum(-1)
        for listener in listeners:
            listener(entropies_c)


class _Picked(torch.autograd.Function):
    """logprobs_N of targets_N; saves one D-vector a position."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, learns: bool
    ) -> Tensor:
        logprobs_N = hidden_ND.new_empty(len(hidden_ND), dtype=torch.float32)
        slopes_ND = torch.empty_like(hidden_ND) if learns else None
        for at in range(0, len(hidden_ND), ROWS):
            part = slice(at, at + ROWS)
            table_cV = product(hidden_ND[part], weight_VD, bias_V).float()
            table_cV -= table_cV.amax(-1, keepdim=True)
            logprobs_N[part] = table_cV.gather(-1, targets_N[part, None]).squeeze(-1)
            # Entropy is log Z - (sum of exp(l) l) / Z: one more copy and one product, no second exponential.
            kept_cV = table_cV.clone() if listeners else None
            totals_c = table_cV.exp_().sum(-1)
            logprobs_N[part] -= totals_c.log()
            if kept_cV is not None:
                weighted_c = kept_cV.mul_(table_cV).nan_to_num_().sum(-1)  # 0 times -inf is 0 here
                for listener in listeners:
                    listener(totals_c.log() - weighted_c / totals_c)
                del kept_cV
            if slopes_ND is not None:
                # softmax minus the target's one, as autograd has it: in half precision the difference of two
                # products would be mostly rounding where the target is near certain.
                table_cV.div_(totals_c[:, None])
                table_cV[torch.arange(len(totals_c), device=table_cV.device), targets_N[part]] -= 1.0
                slopes_ND[part] = -product(table_cV.to(weight_VD.dtype), weight_VD.t(), None)
            del table_cV  # before the next one is made: two would be the peak
        ctx.save_for_backward(slopes_ND)
        return logprobs_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slopes_ND,) = ctx.saved_tensors
        return grad_N[:, None].to(slopes_ND.dtype) * slopes_ND, None, None, None, None


def picked(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor) -> Tensor:
    """Nats [N] of each target given its hidden state. Differentiable in hidden_ND, not in the head."""
    learns = torch.is_grad_enabled() and hidden_ND.requires_grad
    found: Tensor = _Picked.apply(hidden_ND, weight_VD, bias_V, targets_N, learns)  # type: ignore[no-untyped-call]
    return found


Pick = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(hidden_ND, weight_VD, bias_V) -> what is wanted of the N positions, [N, m]."""


@contextmanager
def picking(model: Any, rows_N: Tensor, columns_N: Tensor, pick: Pick) -> Iterator[None]:
    """Inside, the model's head gives, as logits [1, N, m], what `pick` makes of (rows, columns)."""
    head = output_head(model)
    before = head.__dict__.get("forward")
    head.forward = lambda hidden: pick(hidden[rows_N, columns_N], head.weight, head.bias)[None]
    try:
        yield
    finally:
        if before is None:
            del head.forward
        else:
            head.forward = before


@contextmanager
def head_at(model: Any, rows_N: Tensor, columns_N: Tensor) -> Iterator[None]:
    """Inside, the model's head sees only the hidden states at (rows, columns), as one row of N.

    For models whose logits are not just their head's output: what an architecture does after its head (soft
    caps, scales) stays in place.
    """
    head = output_head(model)

    def gather(_module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][rows_N, columns_N].unsqueeze(0), *inputs[1:])

    handle = head.register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()


def output_head(model: Any) -> Any:
    """The model's output embeddings. Raises: EngineError where it has none."""
    head = model.get_output_embeddings()
    if head is None:
        raise EngineError(f"{type(model).__name__} has no output head, so logprobs cannot be computed")
    return head


def gives_logits(model: Any) -> bool:
    """Are this model's logits its head's output and nothing more, from a frozen linear layer?

    Found out once, by a pass over two tokens: a soft cap or a scale has no common name in configurations.
    """
    head = output_head(model)
    if type(head) is not torch.nn.Linear or head.weight.requires_grad:
        return False
    if not hasattr(head, _GIVES_LOGITS):
        setattr(head, _GIVES_LOGITS, _passes_through(model, head))
    return bool(getattr(head, _GIVES_LOGITS))


def _passes_through(model: Any, head: Any) -> bool:
    seen: list[Tensor] = []
    handle = head.register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    training = model.training
    model.eval()  # a pass in training mode would use up dropout's random numbers
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[0, 1]], device=model.device), use_cache=False).logits
    finally:
        handle.remove()
        model.train(training)
    return len(seen) == 1 and torch.equal(seen[0], logits)
