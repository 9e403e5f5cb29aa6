"""Direct preference optimisation, and its identity variant, on pairs of one prompt: y_w chosen, y_l rejected.

With h(y) = log p(y|x) - log p_ref(y|x), the reference policy fixed, and P the pairs of the optimizer step:

    dpo    L = (1/P) sum  -log sigmoid(beta * (h(y_w) - h(y_l)))
    ipo    L = (1/P) sum  (h(y_w)/|y_w| - h(y_l)/|y_l| - 1/(2 beta))^2
    both   + nll * (1/P) sum  -log p(y_w|x) / |y_w|

|y| counts tokens, the stop token included. Metrics: `accuracy`, the share of pairs with a positive margin;
`margin`, its mean: beta times what beta multiplies above; `kl` from the reference.

Source: dpo (Rafailov et al. 2023, eq. 7); ipo (Azar et al. 2023, eq. 17); the NLL term of iterative RPO (Pang
et al. 2024, eq. 1, there with nll = 1).
Differs from the papers: 1. ipo takes means over tokens: sums would make the target margin depend on length.
2. NLL is divided by the tokens of the answer; the paper counts its chain of thought and its answer, here both
are one completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from selfrefine.objectives.base import Batch, Item, Loss, ObjectiveKind
from selfrefine.objectives.terms import kl_from_reference, known, log_ratios, sums

if TYPE_CHECKING:
    from torch import Tensor


class PreferenceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    beta: Annotated[
        float,
        Meta(gt=0.0, description="Strength of the pull towards the reference; the IPO paper calls it tau."),
    ] = 0.1
    nll: Annotated[
        float,
        Meta(
            ge=0.0,
            description="Weight of an added likelihood term on the chosen answers; iterative RPO uses 1.",
        ),
    ] = 0.0


def dpo(logprobs: Sequence[Tensor], batch: Batch) -> Loss:
    """logprobs: one tensor [tokens] of nats for each of batch.items, whole pairs in any order."""
    from torch.nn.functional import logsigmoid

    ratios = log_ratios(logprobs, batch.items)
    chosen, rejected = in_pairs(batch.items)
    margins = batch.settings.beta * (ratios[chosen] - ratios[rejected])
    return _loss(-logsigmoid(margins), margins, chosen, logprobs, batch)


def ipo(logprobs: Sequence[Tensor], batch: Batch) -> Loss:
    """As `dpo`; beta is the paper's tau."""
    ratios = log_ratios(logprobs, batch.items)
    means = ratios / known(lengths(batch.items), ratios)
    chosen, rejected = in_pairs(batch.items)
    margins = means[chosen] - means[rejected]
    losses = (margins - 0.5 / batch.settings.beta) ** 2
    return _loss(losses, batch.settings.beta * margins, chosen, logprobs, batch)


def _loss(
    losses: Tensor, margins: Tensor, chosen: list[int], logprobs: Sequence[Tensor], batch: Batch
) -> Loss:
    pairs = batch.step_items / 2
    if batch.settings.nll:
        total = sums(logprobs)
        nll = -(total / known(lengths(batch.items), total))[chosen]
        losses = losses + batch.settings.nll * nll
    metrics = {
        "accuracy": float((margins > 0).sum()) / pairs,
        "margin": float(margins.detach().sum()) / pairs,
        **kl_from_reference(logprobs, batch),
    }
    return Loss(losses.sum() / pairs, metrics)


def lengths(items: Sequence[Item]) -> list[int]:
    """Tokens of each completion; 1 for an empty one, which has no logprob to divide."""
    return [max(1, len(item.completion_token_ids)) for item in items]


def in_pairs(items: Sequence[Item]) -> tuple[list[int], list[int]]:
    """Places of the chosen and of the rejected items, pair by pair.

    A pair may be there twice: a step that ends one epoch and begins the next.
    """
    chosen = [i for i, item in enumerate(items) if item.role == "chosen"]
    rejected: dict[str | None, list[int]] = {}
    for i, item in enumerate(items):
        if item.role == "rejected":
            rejected.setdefault(item.pair, []).append(i)
    return chosen, [rejected[items[i].pair].pop() for i in chosen]


DPO = ObjectiveKind(
    name="dpo",
    about="pairs of a chosen and a rejected answer",
    rows="pairs",
    loss=dpo,
    settings=PreferenceSettings,
    learning_rate=5e-6,
    needs_reference=True,
    source="Rafailov et al. 2023",
)
IPO = replace(
    DPO, name="ipo", about="like `dpo`, with a fixed target margin", loss=ipo, source="Azar et al. 2023"
)
