"""Logprobs of completions given their prompts, with the head computed at completion positions only.

Legend: b rows in a micro-batch, T tokens of a row, N completion tokens in it, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from selfrefine.compute import classes, head
from selfrefine.compute.packing import Pair, found_out, known, laid_tokens, lay_out, packed, why_not
from selfrefine.compute.plain import plain
from selfrefine.compute.prefix import shared_beginning
from selfrefine.errors import EngineError

T = TypeVar("T")


class Read(NamedTuple):
    """What is wanted of the places that predict the completions' tokens, [N, m], by the two ways to it."""

    of_hidden: head.Pick
    of_logits: Callable[[Tensor], Tensor]


def completion_logprobs(model: Any, pairs: Sequence[Pair]) -> list[Tensor]:
    """One float32 tensor a pair: nats of each completion token at temperature 1. Differentiable.

    Pairs with equal prompts share the prompt's computation where the model can take it (`packing`) and that
    leaves fewer tokens to compute; else each pair is a row. An empty completion gives an empty tensor.
    Raises: EngineError for an empty prompt.
    """
    return _rows(model, pairs)


def _of_tokens(pairs: Sequence[Pair], device: Any) -> Read:
    """The completions' own tokens: m is 1."""
    targets = [token for _, completion in pairs for token in completion]
    targets_N = torch.tensor(targets, dtype=torch.long, device=device)
    return Read(
        lambda hidden, weight, bias: head.picked(hidden, weight, bias, targets_N)[:, None],
        lambda logits: logits.gather(-1, targets_N[:, None]) - logits.logsumexp(-1, keepdim=True),
    )


def class_logprobs(model: Any, pairs: Sequence[Pair], ids: Sequence[Tensor]) -> list[Tensor]:
    """As `completion_logprobs`, of other tokens: `ids`, a pair's [tokens, k], distinct in a row. One float32
    tensor [tokens, k + 1] a pair: nats of these, and of all others as one (`classes`)."""
    ids_Nk = torch.cat(tuple(ids)).to(model.device)
    read = Read(
        lambda hidden, weight, bias: classes.picked(hidden, weight, bias, ids_Nk),
        lambda logits: classes.of_logits(logits, ids_Nk),
    )
    return _rows(model, pairs, read)


@torch.no_grad()
def top_classes(model: Any, pairs: Sequence[Pair], k: int) -> list[tuple[Tensor, Tensor]]:
    """The k most likely tokens where each completion token stands (at most the vocabulary): a pair's ids
    [tokens, k], the likeliest first, and their nats with those of the rest, [tokens, k + 1]."""
    found: list[Tensor] = []

    def top(logits_cV: Tensor) -> Tensor:
        ids_ck, logprobs = classes.top(logits_cV, k)
        found.append(ids_ck)
        return logprobs

    read = Read(lambda hidden, weight, bias: classes.by_chunks(hidden, weight, bias, top), top)
    logprobs = _rows(model, pairs, read)
    return list(zip(_split(torch.cat(found), pairs), logprobs, strict=True))


def _split(found_N: Tensor, pairs: Sequence[Pair]) -> list[Tensor]:
    return list(torch.split(found_N, [len(completion) for _, completion in pairs]))


def _rows(model: Any, pairs: Sequence[Pair], read: Read | None = None) -> list[Tensor]:
    if any(not prompt for prompt, _ in pairs):
        raise EngineError("the prompt is empty, so its completion has no logprobs")
    padded = len(pairs) * max((len(prompt) + len(answer) for prompt, answer in pairs), default=0)
    fewer = laid_tokens(pairs) < padded
    rows = _shared_rows if fewer and shares_rows(model, pairs) else _padded_rows
    return rows(model, pairs, read)


def _shared_rows(model: Any, pairs: Sequence[Pair], read: Read | None = None) -> list[Tensor]:
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
        found = _at(model, torch.zeros_like(columns_N), columns_N, pairs, inputs, picks, read)
    if layout.calls != model.config.get_text_config().num_hidden_layers:
        raise EngineError("the model's attention ignored the packed rows")
    return found


def _padded_rows(model: Any, pairs: Sequence[Pair], read: Read | None = None) -> list[Tensor]:
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
    return _at(model, rows_N, columns_N, pairs, inputs, not plain() and head.gives_logits(model), read)


def _at(
    model: Any,
    rows_N: Tensor,
    columns_N: Tensor,
    pairs: Sequence[Pair],
    inputs: dict[str, Any],
    picks: bool,
    read: Read | None,
) -> list[Tensor]:
    """One pass, with the head at the places (row, column) that predict the completions' tokens."""
    wanted = read or _of_tokens(pairs, rows_N.device)
    if picks:
        with head.picking(model, rows_N, columns_N, wanted.of_hidden):
            found_Nm = model(**inputs, use_cache=False).logits[0]
    else:
        with nullcontext() if plain() else head.head_at(model, rows_N, columns_N):
            table = model(**inputs, use_cache=False).logits
        logits_NV = (table[rows_N, columns_N] if plain() else table[0]).float()
        head.tell(logits_NV.detach())
        found_Nm = wanted.of_logits(logits_NV)
    return _split(found_Nm.squeeze(-1) if read is None else found_Nm, pairs)


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
    rows = in_parts(model, pairs, token_budget, lambda part: completion_logprobs(model, part))
    return [tuple(row.tolist()) for row in rows]


def in_parts(
    model: Any, pairs: Sequence[Pair], token_budget: int, compute: Callable[[list[Pair]], Sequence[T]]
) -> list[T]:
    """What `compute` makes of each pair, in order, `token_budget` at once."""
    results: dict[int, T] = {}
    for micro in cut(model, pairs, token_budget):
        results.update(zip(micro, compute([pairs[i] for i in micro]), strict=True))
    return [results[i] for i in range(len(pairs))]


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
