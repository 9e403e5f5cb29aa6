"""Drawing the next token: inverse CDF with one uniform per row.

Legend: B rows, V vocabulary, K candidates kept by top-k or top-p.

A multinomial draw through exponentials costs V random numbers a row and depends on generator state that
all rows share. One uniform per row costs one number and makes a row's stream its own.
"""

from __future__ import annotations

import torch

from selfrefine.config import Sampling

_CHUNK = 256
_FIRST_CANDIDATES = 256
"""top-p looks at this many most likely tokens before it pays for more (a full sort is V log V)."""


def draw(
    logits_BV: torch.Tensor, uniforms_B: torch.Tensor, sampling: Sampling, seen_BV: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [B] and their logprobs [B] (nats of the policy at temperature 1, float32) from float32
    logits, which are overwritten. `seen_BV`: which tokens stand in a row already, for the repetition penalty.

    The order is transformers': the penalty, temperature, top-k, then top-p on what top-k left, renormalised,
    then min-p. So the same settings mean the same distribution as in `model.generate`.
    """
    temperature = sampling.temperature
    if logits_BV.device.type == "mps":  # has no float64, which the sums need
        seen_BV = None if seen_BV is None else seen_BV.cpu()
        drawn_B, logprobs_B = draw(logits_BV.cpu(), uniforms_B.cpu(), sampling, seen_BV)
        return drawn_B.to(logits_BV.device), logprobs_B.to(logits_BV.device)
    wished_BV = None if seen_BV is None else _penalised(logits_BV, seen_BV, sampling.repetition_penalty)
    greatest_B, drawn_B = logits_BV.max(-1)
    # In place: with 128 rows and 49,152 tokens a further copy is 25 MB to write and to read again.
    logits_BV.sub_(greatest_B[:, None])
    restricted = sampling.top_k or sampling.top_p < 1.0 or sampling.min_p
    if temperature in (0.0, 1.0) and not restricted and wished_BV is None:
        weights_BV = logits_BV.exp_()
        if temperature:
            drawn_B, totals_B = inverse_cdf(weights_BV, uniforms_B)
        else:
            totals_B = weights_BV.sum(-1)
        chosen_B = weights_BV.gather(-1, drawn_B[:, None]).squeeze(-1).log()
        return drawn_B, (chosen_B - totals_B.log()).float()
    if wished_BV is not None:
        drawn_B = wished_BV.argmax(-1)
    if temperature:
        tempered_BV = (logits_BV if wished_BV is None else wished_BV) / temperature
        drawn_B = _restricted(torch.softmax(tempered_BV, -1), uniforms_B, sampling)
    chosen_B = logits_BV.gather(-1, drawn_B[:, None]).squeeze(-1)
    return drawn_B, chosen_B - logits_BV.exp_().sum(-1).log()


def _penalised(logits_BV: torch.Tensor, seen_BV: torch.Tensor, penalty: float) -> torch.Tensor:
    """A copy in which seen tokens are less likely (with a penalty above 1).

    Source: Keskar et al. 2019, CTRL, section 4.1, with transformers' multiplication of negative logits.
    """
    penalised_BV = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return torch.where(seen_BV, penalised_BV, logits_BV)


def _restricted(probs_BV: torch.Tensor, uniforms_B: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    top_k, top_p, min_p = sampling.top_k, sampling.top_p, sampling.min_p
    if 0 < top_k < probs_BV.shape[-1]:
        probs_BK, ids_BK = probs_BV.topk(top_k, -1)
        if top_p < 1.0:
            probs_BK = _nucleus(probs_BK / probs_BK.sum(-1, keepdim=True), top_p)
    elif top_p < 1.0:
        probs_BK, ids_BK = _candidates(probs_BV, top_p)
        probs_BK = _nucleus(probs_BK, top_p)
    else:
        return inverse_cdf(_likely(probs_BV, min_p), uniforms_B)[0]
    probs_BK = _likely(probs_BK, min_p)
    return ids_BK.gather(-1, inverse_cdf(probs_BK, uniforms_B)[0].unsqueeze(-1)).squeeze(-1)


def inverse_cdf(weights_BV: torch.Tensor, uniforms_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index [B] of the first entry whose cumulative weight exceeds u times the total, and the totals [B].

    In two levels, chunks and then the entries of one chunk, so that float64 sums are paid for a few hundred
    numbers a row and not for the vocabulary.

    right=True: with u = 0 and a leading zero weight, the left side would pick an impossible entry. Rounding
    can still carry the threshold past the last possible entry (u times the total reaches the total, or a
    chunk's sum differs from the sum of its entries): such a row takes the last possible entry before it.
    """
    size = weights_BV.shape[-1]
    uniforms_B = uniforms_B.to(weights_BV.device)
    padded = -size % _CHUNK
    padded_BV = torch.nn.functional.pad(weights_BV, (0, padded)) if padded else weights_BV
    chunks_BCk = padded_BV.view(-1, (size + padded) // _CHUNK, _CHUNK)
    ends_BC = chunks_BCk.sum(-1).double().cumsum(-1)
    threshold_B1 = (uniforms_B.double() * ends_BC[:, -1]).unsqueeze(-1)
    chunk_B1 = torch.searchsorted(ends_BC, threshold_B1, right=True).clamp(max=ends_BC.shape[-1] - 1)
    before_B1 = torch.where(chunk_B1 > 0, ends_BC.gather(-1, (chunk_B1 - 1).clamp(min=0)), 0.0)
    inside_Bk = chunks_BCk.gather(1, chunk_B1.unsqueeze(-1).expand(-1, -1, _CHUNK)).squeeze(1)
    offset_B1 = torch.searchsorted(inside_Bk.double().cumsum(-1), threshold_B1 - before_B1, right=True).clamp(
        max=_CHUNK - 1
    )
    drawn_B1 = (chunk_B1 * _CHUNK + offset_B1).clamp(max=size - 1)
    if bool((weights_BV.gather(-1, drawn_B1) > 0).all()):
        return drawn_B1.squeeze(-1), ends_BC[:, -1]
    places_V = torch.arange(size, device=weights_BV.device)
    allowed_BV = (weights_BV > 0) & (places_V <= drawn_B1)
    return torch.where(allowed_BV, places_V, 0).amax(-1), ends_BC[:, -1]


def _likely(probs_BK: torch.Tensor, min_p: float) -> torch.Tensor:
    """Zero what is less likely than min_p times the likeliest. Source: Nguyen et al. 2024, min-p sampling."""
    if not min_p:
        return probs_BK
    return probs_BK.masked_fill(probs_BK < min_p * probs_BK.amax(-1, keepdim=True), 0.0)


def _nucleus(sorted_BK: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero what lies outside the smallest head of descending probabilities that sums to top_p or more."""
    before_BK = sorted_BK.cumsum(-1, dtype=torch.float64) - sorted_BK
    return sorted_BK.masked_fill(before_BK >= top_p, 0.0)


def _candidates(probs_BV: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    count = min(_FIRST_CANDIDATES, probs_BV.shape[-1])
    while True:
        probs_BK, ids_BK = probs_BV.topk(count, -1)
        if count == probs_BV.shape[-1] or bool((probs_BK.sum(-1, dtype=torch.float64) >= top_p).all()):
            return probs_BK, ids_BK
        count = min(count * 8, probs_BV.shape[-1])
