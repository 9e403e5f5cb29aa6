"""Completions of one prompt share one row: the prompt is computed once, however many completions follow it.

Legend: T packed tokens, n siblings, P context tokens, C longest sibling, H heads, D head dimension.

The tokens of a micro-batch lie flat, without padding, as a tree: what all prompts begin with, what each
prompt adds, and its completions. A token sees its ancestors and what precedes it in its own segment, which is
what it would see in a row of its own, and positions restart behind the prompt. So loss and gradients equal
those of separate rows. Attention is computed family by family (siblings and their common context), not under
one dense mask: a dense mask pays for every pair of completions that must not see each other and loses from
8 x 256 tokens on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from selfrefine.compute.plain import VARIABLE, plain
from selfrefine.compute.prefix import shared_beginning

Pair = tuple[Sequence[int], Sequence[int]]
"""(prompt token ids, completion token ids)."""

NAME = "selfrefine_packed"
_EXCHANGEABLE = "_selfrefine_exchangeable_attention"


@dataclass(frozen=True)
class Family:
    """Siblings: segments that follow the same context. They stand one after the other in the flat row."""

    context_P: Tensor
    """Flat places of the context, in order."""
    own_nC: Tensor
    """Flat places of the siblings' tokens: a row each, padded on the right, or all in one."""
    real: Tensor
    """Which of the n * C places are no padding."""
    mask_CK: Tensor | None
    """What token c of a row may see of [context, own]: the same for all rows, since padding comes last."""
    _folded: dict[int, Tensor] = field(default_factory=dict)

    def folded(self, groups: int) -> Tensor | None:
        """The mask of `groups` heads one below the other; made once, for all layers."""
        if groups not in self._folded and self.mask_CK is not None:
            self._folded[groups] = self.mask_CK.repeat(groups, 1)
        return self._folded.get(groups)

    @cached_property
    def places(self) -> Tensor:
        """Flat places of the keys: the context, then the siblings' own, row by row."""
        return torch.cat((self.context_P, self.own_nC.flatten()))


@dataclass
class Layout:
    """The flat row and how its tokens see each other."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    families: list[Family] = field(default_factory=list)
    calls: int = 0
    """Attention layers that went through `attend` in the present forward pass."""

    @cached_property
    def own_places(self) -> tuple[Tensor, list[int]]:
        """Flat places of all families' own tokens, and how many each family has."""
        return _joined([family.own_nC.flatten() for family in self.families])

    @cached_property
    def all_places(self) -> tuple[Tensor, list[int]]:
        """The same with each family's context before its own."""
        return _joined([family.places for family in self.families])

    def add(self, context: Sequence[int], segments: Sequence[Sequence[int]], device: Any) -> list[list[int]]:
        """Append siblings behind `context` (flat places); returns the flat places of each."""
        segments_places: list[list[int]] = []
        for tokens in segments:
            first = len(self.ids)
            segments_places.append(list(range(first, first + len(tokens))))
            self.ids += tokens
            self.positions += range(len(context), len(context) + len(tokens))
        filled = [places for places in segments_places if places]
        if filled:
            self.families.append(_family(context, filled, device))
        return segments_places


JOINT_TOKENS = 256
"""Siblings of so many tokens in all lie in one row, each seeing its own block of it: the blocks that are not
looked at cost little, and a copy of the context for each sibling would cost the most memory of a step."""


def _joined(places: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    return torch.cat(tuple(places)), [len(one) for one in places]


def _family(context: Sequence[int], places: Sequence[Sequence[int]], device: Any) -> Family:
    if sum(map(len, places)) <= JOINT_TOKENS:
        return _joint(context, places, device)
    longest = max(map(len, places))
    own = [[*row, *[row[0]] * (longest - len(row))] for row in places]
    real = [i * longest + j for i, row in enumerate(places) for j in range(len(row))]
    total = len(context) + longest
    mask = None
    if context:
        mask = torch.ones((longest, total), dtype=torch.bool, device=device).tril(len(context))
    return Family(
        torch.tensor(list(context), dtype=torch.long, device=device),
        torch.tensor(own, dtype=torch.long, device=device),
        torch.tensor(real, dtype=torch.long, device=device),
        mask,
    )


def _joint(context: Sequence[int], places: Sequence[Sequence[int]], device: Any) -> Family:
    siblings = [i for i, row in enumerate(places) for _ in row]
    sibling_C = torch.tensor(siblings, device=device)
    own_CC = (sibling_C[:, None] == sibling_C[None]).tril()
    seen_CP = torch.ones((len(siblings), len(context)), dtype=torch.bool, device=device)
    return Family(
        torch.tensor(list(context), dtype=torch.long, device=device),
        torch.tensor([[place for row in places for place in row]], dtype=torch.long, device=device),
        torch.arange(len(siblings), device=device),
        torch.cat((seen_CP, own_CC), dim=1),
    )


def lay_out(pairs: Sequence[Pair], device: Any) -> tuple[Layout, list[list[int]]]:
    """The layout of pairs (equal prompts are laid once), and per pair the places that predict its tokens."""
    layout = Layout()
    prompts: dict[tuple[int, ...], list[int]] = {}
    for i, (prompt, _) in enumerate(pairs):
        prompts.setdefault(tuple(prompt), []).append(i)
    keys = list(prompts)
    shared = shared_beginning(keys)
    root = layout.add([], [keys[0][:shared]], device)[0] if shared else []
    own = layout.add(root, [key[shared:] for key in keys], device)
    predictors: list[list[int]] = [[] for _ in pairs]
    for key, places in zip(keys, own, strict=True):
        members = prompts[key]
        found = layout.add([*root, *places], [pairs[i][1] for i in members], device)
        for i, tokens in zip(members, found, strict=True):
            predictors[i] = [places[-1], *tokens[:-1]] if tokens else []
    return layout, predictors


def laid_tokens(pairs: Sequence[Pair]) -> int:
    """How many tokens the layout of these pairs has."""
    prompts = list({tuple(prompt) for prompt, _ in pairs})
    shared = shared_beginning(prompts)
    return shared + sum(len(p) - shared for p in prompts) + sum(len(answer) for _, answer in pairs)


_current: list[Layout] = []
"""The layout of the forward pass under way: models pass it no further than their own signature."""


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row: query [1, H, T, D], key, value [1, H/groups, T, D] to [1, T, H, D]."""
    layout = _current[-1]
    # Not counted where more is asked than is done here (a bias, sinks): `_shared_rows` then gives up.
    layout.calls += attention_mask is None and kwargs.get("s_aux") is None
    groups = query.shape[1] // key.shape[1]
    queries = gather(query[0].transpose(0, 1), layout, contexts=False)
    keys = gather(key[0].transpose(0, 1), layout, contexts=True)
    values = gather(value[0].transpose(0, 1), layout, contexts=True)
    outputs = []
    for family, own, k, v in zip(layout.families, queries, keys, values, strict=True):
        n, length = family.own_nC.shape
        mask, queries_of = family.mask_CK, own.view(n, length, *own.shape[1:]).transpose(1, 2)
        folds = groups if mask is not None else 1
        if folds > 1:  # the heads of a group one below the other: their keys are read, not repeated
            queries_of = queries_of.reshape(n, -1, folds * length, own.shape[-1])
            mask = family.folded(folds)
        out = scaled_dot_product_attention(
            queries_of,
            _with_context(k, family, groups // folds),
            _with_context(v, family, groups // folds),
            attn_mask=mask,
            dropout_p=dropout,
            scale=scaling,
            is_causal=mask is None,
        )
        outputs.append(out.reshape(n, -1, length, out.shape[-1]).transpose(1, 2).flatten(0, 1)[family.real])
    return torch.cat(outputs).unsqueeze(0), None


def _with_context(states_KHD: Tensor, family: Family, groups: int) -> Tensor:
    """Keys or values of [context, own] for each sibling: [n, H, P + C, D]."""
    n, length = family.own_nC.shape
    context, own = states_KHD[: len(family.context_P)], states_KHD[len(family.context_P) :]
    both = own.view(n, length, *own.shape[1:])
    if len(context):
        both = torch.cat((context.expand(n, -1, -1, -1), both), dim=1)
    both = both.transpose(1, 2)
    return both.repeat_interleave(groups, dim=1) if groups > 1 else both


def gather(states_THD: Tensor, layout: Layout, *, contexts: bool) -> tuple[Tensor, ...]:
    """The states at each family's own places, or its contexts' and its own: a tensor [K, H, D] a family."""
    found: tuple[Tensor, ...] = _Gather.apply(states_THD, layout, contexts)  # type: ignore[no-untyped-call]
    return found


class _Gather(torch.autograd.Function):
    """All families in one operation. Autograd's own gradient of an index would add into a fresh row of zeros
    for each family and layer; but each real token is its own family's once, in the flat order."""

    @staticmethod
    def forward(ctx: Any, states_THD: Tensor, layout: Layout, contexts: bool) -> tuple[Tensor, ...]:
        ctx.layout, ctx.contexts = layout, contexts
        places, counts = layout.all_places if contexts else layout.own_places
        found: tuple[Tensor, ...] = torch.split(states_THD.index_select(0, places), counts)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        own, shared = [], []
        for family, grad_KHD in zip(ctx.layout.families, grads, strict=True):
            before = len(family.context_P) if ctx.contexts else 0
            own.append(grad_KHD[before:][family.real])
            shared.append(grad_KHD[:before])
        total_THD = torch.cat(own)
        for family, grad_KHD in zip(ctx.layout.families, shared, strict=True):
            if len(grad_KHD):
                total_THD[family.context_P] += grad_KHD
        return total_THD, None, None


@contextmanager
def packed(model: Any, layout: Layout) -> Iterator[None]:
    """Inside, the model's attention goes through `attend` with this layout."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = NAME
    _current.append(layout)
    try:
        yield
    finally:
        _current.pop()
        config._attn_implementation = before


def found_out(model: Any, exchangeable: bool) -> None:
    """Whether this model's attention went through `attend`, or it computes it by itself (`why_not`)."""
    setattr(model.get_output_embeddings(), _EXCHANGEABLE, exchangeable)


def known(model: Any) -> bool | None:
    """What `found_out` was told of this model; None before."""
    told: bool | None = getattr(model.get_output_embeddings(), _EXCHANGEABLE, None)
    return told


def why_not(model: Any, longest: int) -> str | None:
    """Why this model cannot take packed rows of `longest` tokens, or None when it can."""
    if plain():
        return f"the fast path is off (compute.plain, {VARIABLE})"
    config = model.config.get_text_config()
    if known(model) is False:
        return "the model has its own way to compute attention"
    if not getattr(model, "_supports_attention_backend", False):
        return "the model's attention cannot be replaced"
    if getattr(config, "attn_logit_softcapping", None):
        return "the model's attention scores are soft-capped"
    window = getattr(config, "sliding_window", None)
    # Models without layer_types (Mistral) slide in every layer as soon as they have a window.
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    if "sliding_attention" in kinds and window and window < longest:
        return f"the model's sliding window ({window:,} tokens) is shorter than the longest row ({longest:,})"
    if kinds - {"full_attention", "sliding_attention"}:
        return f"the model has layers of kind {', '.join(sorted(kinds))}"
    if model.training and _drops(model, config):
        return "dropout is on"
    return None


def _drops(model: Any, config: Any) -> bool:
    """Does anything drop while training: a module, or a rate that the model's code passes to a function."""
    rates = [value for key, value in config.to_dict().items() if "dropout" in key or "pdrop" in key]
    asked = any(isinstance(rate, int | float) and rate > 0 for rate in rates)
    return asked or any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())
