"""Logprobs of completions given their prompts, with the head computed at completion positions only.

Legend: b rows in a micro-batch, T padded length, N completion tokens in it, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from selfrefine.errors import EngineError

Pair = tuple[Sequence[int], Sequence[int]]
"""(prompt token ids, completion token ids)."""


@contextmanager
def head_at(model: Any, rows_N: Tensor, columns_N: Tensor) -> Iterator[None]:
    """Inside, the model's head sees only the hidden states at (rows, columns), as one row of N.

    A hook on the head's input rather than calling the head ourselves: what an architecture does after its
    head (soft caps, scales) stays in place.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise EngineError(f"{type(model).__name__} has no output head to read logprobs from")

    def gather(_module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][rows_N, columns_N].unsqueeze(0), *inputs[1:])

    handle = head.register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()


def completion_logprobs(model: Any, pairs: Sequence[Pair]) -> list[Tensor]:
    """One float32 tensor a pair: nats of each completion token at temperature 1. Differentiable.

    Rows are padded on the right and the padding is masked, so a row's result does not depend on its company.
    An empty completion gives an empty tensor; a prompt must have at least one token.
    """
    device = model.device
    longest = max(len(prompt) + len(completion) for prompt, completion in pairs)
    ids_bT = torch.zeros((len(pairs), longest), dtype=torch.long)
    mask_bT = torch.zeros((len(pairs), longest), dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    for i, (prompt, completion) in enumerate(pairs):
        if not prompt:  # its first completion token would be read off another row's padding
            raise EngineError("an empty prompt gives its completion no logprobs")
        tokens = [*prompt, *completion]
        ids_bT[i, : len(tokens)] = torch.tensor(tokens)
        mask_bT[i, : len(tokens)] = 1
        rows += [i] * len(completion)
        columns += range(len(prompt) - 1, len(tokens) - 1)
        targets += completion
    # Typed by hand: where every completion is empty, torch would make float indices of the empty lists.
    rows_N = torch.tensor(rows, dtype=torch.long, device=device)
    columns_N = torch.tensor(columns, dtype=torch.long, device=device)
    with head_at(model, rows_N, columns_N):
        out = model(input_ids=ids_bT.to(device), attention_mask=mask_bT.to(device), use_cache=False)
    logits_NV = out.logits[0].float()
    targets_N = torch.tensor(targets, dtype=torch.long, device=device)
    picked_N = logits_NV.gather(-1, targets_N[:, None]).squeeze(-1)
    return list((picked_N - logits_NV.logsumexp(-1)).split([len(c) for _, c in pairs]))


def by_budget(
    lengths: Sequence[int], token_budget: int, order: Sequence[int] | None = None
) -> list[list[int]]:
    """Cut indices into micro-batches whose padded size stays within the budget (one row always fits).

    Sorted by length first: padding is paid for. The result depends on lengths and budget only.
    """
    order = sorted(range(len(lengths)) if order is None else order, key=lambda i: (lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        if batches and lengths[i] * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
