"""Logprobs of completions given their prompts, with the head computed at completion positions only.

Legend: b rows in a micro-batch, T tokens of a row, N completion tokens in it, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from selfrefine.compute import head
from selfrefine.compute.packing import Pair, found_out, known, laid_tokens, lay_out, packed, why_not
from selfrefine.compute.plain import plain
from selfrefine.compute.prefix import shared_beginning
from selfrefine.errors import EngineError


def completion_logprobs(model: Any, pairs: Sequence[Pair]) -> list[Tensor]:
    """One float32 tensor a pair: nats of each completion token at temperature 1. Differentiable.

    Pairs with equal prompts share the prompt's computation where the model can take it (`packing`) and that
    leaves fewer tokens to compute; else each pair is a row. An empty completion gives an empty tensor.
    Raises: EngineError for an empty prompt.
    """
    if any(not prompt for prompt, _ in pairs):
        raise EngineError("the prompt is empty, so its completion has no logprobs")
    padded = len(pairs) * max((len(prompt) + len(answer) for prompt, answer in pairs), default=0)
    fewer = laid_tokens(pairs) < padded
    return _shared_rows(model, pairs) if fewer and shares_rows(model, pairs) else _padded_rows(model, pairs)


def _shared_rows(model: Any, pairs: Sequence[Pair]) -> list[Tensor]:
    device = model.device
    picks = head.gives_logits(model)  # found out by a pass of its own, which must not be a packed one
    layout, predictors = lay_out(pairs, device)
    columns_N = torch.tensor(list(itertools.chain(*predictors)), dtype=torch.long, device=device)
    inputs = {
        "input_ids": torch.tensor([layout.ids], device=device),
        "position_ids": torch.tensor([layout.positions], device=device),
        "attention_mask": None,
    }
    with packed(model, layout):
        found = _at(model, torch.zeros_like(columns_N), columns_N, pairs, inputs, picks)
    if layout.calls != model.config.get_text_config().num_hidden_layers:
        raise EngineError("the model's attention ignored the packed rows")
    return found


def _padded_rows(model: Any, pairs: Sequence[Pair]) -> list[Tensor]:
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
    return _at(model, rows_N, columns_N, pairs, inputs, not plain() and head.gives_logits(model))


def _at(
    model: Any,
    rows_N: Tensor,
    columns_N: Tensor,
    pairs: Sequence[Pair],
    inputs: dict[str, Any],
    picks: bool,
) -> list[Tensor]:
    """One pass, with the head at the places (row, column) that predict the completions' tokens."""
    targets = [token for _, completion in pairs for token in completion]
    targets_N = torch.tensor(targets, dtype=torch.long, device=rows_N.device)
    if picks:
        with head.picking(model, rows_N, columns_N, targets_N):
            logprobs_N = model(**inputs, use_cache=False).logits[0, :, 0]
    else:
        with nullcontext() if plain() else head.head_at(model, rows_N, columns_N):
            table = model(**inputs, use_cache=False).logits
        logits_NV = (table[rows_N, columns_N] if plain() else table[0]).float()
        head.tell(logits_NV.detach())
        logprobs_N = logits_NV.gather(-1, targets_N[:, None]).squeeze(-1) - logits_NV.logsumexp(-1)
    return list(torch.split(logprobs_N, [len(completion) for _, completion in pairs]))


def shares_rows(model: Any, pairs: Sequence[Pair]) -> bool:
    """Do completions of one prompt share its row on this model, the longest of these pairs included?

    Found out by a small pass before anything is cut into micro-batches: a model with attention of its own
    would take them, and its numbers would be worth nothing.
    """
    longest = max((len(prompt) + len(answer) for prompt, answer in pairs), default=0)
    if why_not(model, longest) is None and known(model) is None:
        found_out(model, _exchangeable(model))
    return why_not(model, longest) is None


def _exchangeable(model: Any) -> bool:
    layout, _ = lay_out([((0, 0), (0,)), ((0, 0), (0, 0))], model.device)
    ids = torch.tensor([layout.ids], device=model.device)
    positions = torch.tensor([layout.positions], device=model.device)
    with torch.no_grad(), packed(model, layout):
        model.get_decoder()(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False)
    return bool(layout.calls == model.config.get_text_config().num_hidden_layers)


def cut(model: Any, pairs: Sequence[Pair], token_budget: int) -> list[list[int]]:
    """`by_budget` as this model computes the pairs."""
    return by_budget(pairs, token_budget, shared=shares_rows(model, pairs))


@torch.no_grad()
def scored(model: Any, pairs: Sequence[Pair], token_budget: int) -> list[tuple[float, ...]]:
    """`completion_logprobs` of any number of pairs, in order, without gradient, `token_budget` at once."""
    results: list[tuple[float, ...]] = [()] * len(pairs)
    for micro in cut(model, pairs, token_budget):
        rows = completion_logprobs(model, [pairs[i] for i in micro])
        for i, row in zip(micro, rows, strict=True):
            results[i] = tuple(row.tolist())
    return results


def by_budget(pairs: Sequence[Pair], token_budget: int, *, shared: bool = True) -> list[list[int]]:
    """Cut pairs into micro-batches that compute at most `token_budget` tokens (one pair always fits).

    What all prompts begin with counts once a micro-batch, a prompt's own part once for its completions there.
    A group that does not fit into what is left begins a new micro-batch, and is split only where it is over
    the budget: its prompt is then computed again. Without `shared` a pair is a row and as long as the longest
    beside it. Longer prompts (or rows) come later, so that little is padding.
    """
    if not shared:
        return rows_by_budget([[len(prompt) + len(answer)] for prompt, answer in pairs], token_budget)
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i, (prompt, _) in enumerate(pairs):
        by_prompt.setdefault(tuple(prompt), []).append(i)
    beginning = shared_beginning(list(by_prompt))
    batches: list[list[int]] = []
    room = 0
    for prompt in sorted(by_prompt, key=lambda key: (len(key), by_prompt[key][0])):
        members = by_prompt[prompt]
        own = len(prompt) - beginning
        if own + sum(len(pairs[i][1]) for i in members) > room:
            room = 0
        new_prompt = True
        for i in members:
            cost = len(pairs[i][1]) + (own if new_prompt else 0)
            if cost > room or not batches:
                batches.append([])
                room, cost = token_budget - beginning, len(pairs[i][1]) + own
            batches[-1].append(i)
            room -= cost
            new_prompt = False
    return batches


def rows_by_budget(units: Sequence[Sequence[int]], token_budget: int) -> list[list[int]]:
    """Cut units of rows (their lengths) that are padded to the longest beside them; a unit stays whole."""
    batches: list[list[int]] = []
    rows = 0
    for i in sorted(range(len(units)), key=lambda k: max(units[k])):
        if not batches or (rows + len(units[i])) * max(units[i]) > token_budget:
            batches.append([])
            rows = 0
        batches[-1].append(i)
        rows += len(units[i])
    return batches
