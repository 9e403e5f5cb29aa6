"""Logprobs of completions given their prompts, with the head computed at completion positions only.

Legend: b rows in a micro-batch, T tokens of a row, N completion tokens in it, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from selfrefine.errors import EngineError
from selfrefine.training import head
from selfrefine.training.packing import Pair, lay_out, packed, why_not


def completion_logprobs(model: Any, pairs: Sequence[Pair]) -> list[Tensor]:
    """One float32 tensor a pair: nats of each completion token at temperature 1. Differentiable.

    Pairs with equal prompts share the prompt's computation where the model can take it (`packing`), else each
    pair is a row. An empty completion gives an empty tensor. Raises: EngineError for an empty prompt.
    """
    if any(not prompt for prompt, _ in pairs):
        raise EngineError("an empty prompt gives its completion no logprobs")
    longest = max(len(prompt) + len(completion) for prompt, completion in pairs)
    found = None if why_not(model, longest) else _shared_rows(model, pairs)
    return _plain_rows(model, pairs) if found is None else found


def _shared_rows(model: Any, pairs: Sequence[Pair]) -> list[Tensor] | None:
    """None when the model turned out to compute attention by itself: its numbers are then worth nothing."""
    device = model.device
    plain = head.is_plain(model)  # found out by a pass of its own, which must not be a packed one
    layout, predictors = lay_out(pairs, device)
    columns_N = torch.tensor(list(itertools.chain(*predictors)), dtype=torch.long, device=device)
    inputs = {
        "input_ids": torch.tensor([layout.ids], device=device),
        "position_ids": torch.tensor([layout.positions], device=device),
        "attention_mask": None,
    }
    with packed(model, layout):
        found = _at(model, torch.zeros_like(columns_N), columns_N, pairs, inputs, plain)
    return found if layout.calls == model.config.get_text_config().num_hidden_layers else None


def _plain_rows(model: Any, pairs: Sequence[Pair]) -> list[Tensor]:
    """Rows padded on the right; the padding is masked, so a row's result does not depend on its company."""
    device = model.device
    longest = max(len(prompt) + len(completion) for prompt, completion in pairs)
    ids_bT = torch.zeros((len(pairs), longest), dtype=torch.long)
    mask_bT = torch.zeros((len(pairs), longest), dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    for i, (prompt, completion) in enumerate(pairs):
        tokens = [*prompt, *completion]
        ids_bT[i, : len(tokens)] = torch.tensor(tokens)
        mask_bT[i, : len(tokens)] = 1
        rows += [i] * len(completion)
        columns += range(len(prompt) - 1, len(tokens) - 1)
    # Typed by hand: where every completion is empty, torch would make float indices of the empty lists.
    rows_N = torch.tensor(rows, dtype=torch.long, device=device)
    columns_N = torch.tensor(columns, dtype=torch.long, device=device)
    inputs = {"input_ids": ids_bT.to(device), "attention_mask": mask_bT.to(device)}
    return _at(model, rows_N, columns_N, pairs, inputs, head.is_plain(model))


def _at(
    model: Any,
    rows_N: Tensor,
    columns_N: Tensor,
    pairs: Sequence[Pair],
    inputs: dict[str, Any],
    plain: bool,
) -> list[Tensor]:
    """One pass, with the head at the places (row, column) that predict the completions' tokens."""
    targets = [token for _, completion in pairs for token in completion]
    targets_N = torch.tensor(targets, dtype=torch.long, device=rows_N.device)
    if plain:
        with head.picking(model, rows_N, columns_N, targets_N):
            logprobs_N = model(**inputs, use_cache=False).logits[0, :, 0]
    else:
        with head.head_at(model, rows_N, columns_N):
            logits_NV = model(**inputs, use_cache=False).logits[0].float()
        logprobs_N = logits_NV.gather(-1, targets_N[:, None]).squeeze(-1) - logits_NV.logsumexp(-1)
    return list(torch.split(logprobs_N, [len(completion) for _, completion in pairs]))


def by_budget(pairs: Sequence[Pair], token_budget: int) -> list[list[int]]:
    """Cut pairs into micro-batches of at most `token_budget` tokens (one pair always fits).

    Pairs of one prompt stay together, and their prompt counts once; a group over the budget is split and pays
    for its prompt again. Longer prompts come later, so that where rows are padded the padding is small.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i, (prompt, _) in enumerate(pairs):
        by_prompt.setdefault(tuple(prompt), []).append(i)
    batches: list[list[int]] = []
    spent = token_budget
    for prompt in sorted(by_prompt, key=lambda key: (len(key), by_prompt[key][0])):
        members = by_prompt[prompt]
        whole = len(prompt) + sum(len(pairs[i][1]) for i in members)
        if spent + whole > token_budget and (spent or whole > token_budget):
            spent = token_budget  # a group that does not fit begins a new micro-batch
        new_prompt = True
        for i in members:
            cost = len(pairs[i][1]) + (len(prompt) if new_prompt else 0)
            if spent + cost > token_budget:
                batches.append([])
                spent, cost = 0, len(prompt) + len(pairs[i][1])
            batches[-1].append(i)
            spent += cost
            new_prompt = False
    return batches
