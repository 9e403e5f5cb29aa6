"""The draw is exactly the model's distribution, truncated as transformers truncates it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare  # type: ignore[import-untyped]
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from selfrefine.config import Sampling
from selfrefine.sampling.draw import draw, inverse_cdf

BELOW_ONE = np.nextafter(1.0, 0.0)


SEEN = (0, 3, 5)
"""What stands in the row already, prompt and answer."""


def warped(logits_V: torch.Tensor, how: Sampling) -> np.ndarray:
    """The distribution that `model.generate` would sample from."""
    warpers = LogitsProcessorList()
    if how.repetition_penalty != 1.0:
        warpers.append(RepetitionPenaltyLogitsProcessor(how.repetition_penalty))
    warpers.append(TemperatureLogitsWarper(how.temperature))
    if how.top_k:
        warpers.append(TopKLogitsWarper(how.top_k))
    if how.top_p < 1.0:
        warpers.append(TopPLogitsWarper(how.top_p))
    if how.min_p:
        warpers.append(MinPLogitsWarper(how.min_p))
    scores = warpers(torch.tensor([SEEN]), logits_V[None].double())
    return torch.softmax(scores[0], -1).numpy()


def seen(rows: int, vocabulary: int) -> torch.Tensor:
    mask_BV = torch.zeros((rows, vocabulary), dtype=torch.bool)
    mask_BV[:, list(SEEN)] = True
    return mask_BV


def p_value(counts_V: np.ndarray, probabilities_V: np.ndarray) -> float:
    """Chi-square with cells below five expected counts pooled; an impossible token drawn is p = 0."""
    if counts_V[probabilities_V == 0].any():
        return 0.0
    expected_V = probabilities_V * counts_V.sum()
    small = expected_V < 5
    observed = np.append(counts_V[~small], counts_V[small].sum())
    expected = np.append(expected_V[~small], expected_V[small].sum())
    if expected[-1] == 0:
        observed, expected = observed[:-1], expected[:-1]
    return float(chisquare(observed, expected).pvalue)


@pytest.mark.parametrize("vocabulary", [7, 303])
@pytest.mark.parametrize(
    "how",
    [
        Sampling(),
        Sampling(temperature=0.7),
        Sampling(top_k=5),
        Sampling(top_p=0.8),
        Sampling(temperature=0.7, top_k=5, top_p=0.8),
        Sampling(temperature=1.5, top_k=40, top_p=0.95),
        Sampling(min_p=0.1),
        Sampling(temperature=1.5, min_p=0.2),
        Sampling(temperature=1.5, top_k=5, top_p=0.9, min_p=0.3),
        Sampling(temperature=1.3, top_p=0.95, min_p=0.05),
        Sampling(repetition_penalty=1.8),
        Sampling(temperature=0.7, top_k=6, min_p=0.05, repetition_penalty=0.6),
    ],
    ids=repr,
)
def test_draws_follow_the_distribution_generate_would_sample(vocabulary: int, how: Sampling) -> None:
    """Recorded is what the policy itself thinks of the token, whatever shaped the draw."""
    rng = np.random.default_rng(vocabulary)
    logits_V = torch.tensor(rng.normal(0, 2, vocabulary), dtype=torch.float32)
    assert (logits_V[list(SEEN)] > 0).any() and (logits_V[list(SEEN)] < 0).any()
    exact_V = warped(logits_V, how)
    uniforms_B = torch.tensor(rng.random(30_000))
    mask_BV = seen(30_000, vocabulary) if how.repetition_penalty != 1.0 else None
    drawn_B, logprobs_B = draw(logits_V.repeat(30_000, 1), uniforms_B, how, mask_BV)
    torch.testing.assert_close(logprobs_B, logits_V.log_softmax(-1)[drawn_B], rtol=1e-5, atol=2e-6)
    counts_V = np.bincount(drawn_B.numpy(), minlength=vocabulary)
    assert p_value(counts_V, exact_V) > 1e-4
    # The check has teeth: the untruncated, untempered distribution is told apart at once.
    if how != Sampling():
        assert p_value(counts_V, warped(logits_V, Sampling())) < 1e-9


def test_min_p_is_relative_to_the_likeliest_by_hand() -> None:
    """Of 0.5, a fifth is 0.1: 0.0625 goes. Squared and renormalised (temperature 1/2) 0.1875 goes as well."""
    logits_BV = torch.log(torch.tensor([0.25, 0.0625, 0.5, 0.1875])).repeat(1000, 1)
    uniforms_B = torch.linspace(0, BELOW_ONE, 1000, dtype=torch.float64)
    for how, kept in (
        (Sampling(min_p=0.2), {0, 2, 3}),
        (Sampling(temperature=0.5, min_p=0.2), {0, 2}),
        # After top-p: of 0.5, 0.25, 0.1875 renormalised the first two would reach 0.78 already.
        (Sampling(top_p=0.78, min_p=0.2), {0, 2, 3}),
    ):
        assert set(draw(logits_BV.clone(), uniforms_B, how)[0].tolist()) == kept


def test_a_penalty_moves_the_greedy_token_and_not_its_logprob() -> None:
    """2.0 / 2 is less than 1.5; -0.1 * 2 is less than -0.15. The logprobs are those of the raw logits."""
    logits = torch.tensor([[2.0, 1.5, -1.0], [-0.1, -0.15, -3.0]])
    expected = logits.log_softmax(-1)[:, 1]
    mask = torch.tensor([[True, False, False], [True, False, False]])
    greedy = Sampling(temperature=0.0, repetition_penalty=2.0)
    drawn, logprobs = draw(logits, torch.zeros(2), greedy, mask)
    assert drawn.tolist() == [1, 1]
    torch.testing.assert_close(logprobs, expected)


def test_temperature_zero_is_argmax_and_uses_no_uniform() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 0.0]])
    expected = torch.stack([logits[0].log_softmax(-1)[1], logits[1].log_softmax(-1)[0]])
    drawn, logprobs = draw(logits, torch.tensor([0.99, 0.99]), Sampling(temperature=0.0))
    assert drawn.tolist() == [1, 0]
    torch.testing.assert_close(logprobs, expected)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    # The smallest head that reaches p: 0.5 is reached by the first token alone, 0.51 needs the second.
    [(0.3, {2}), (0.5, {2}), (0.51, {2, 0}), (0.76, {2, 0, 3}), (1.0, {0, 1, 2, 3})],
)
def test_nucleus_by_hand(top_p: float, kept: set[int]) -> None:
    logits_BV = torch.log(torch.tensor([0.25, 0.0625, 0.5, 0.1875])).repeat(1000, 1)
    drawn, _ = draw(logits_BV, torch.linspace(0, BELOW_ONE, 1000, dtype=torch.float64), Sampling(top_p=top_p))
    assert set(drawn.tolist()) == kept


def test_a_nucleus_wider_than_the_first_candidates_is_not_cut_short() -> None:
    # 2,000 almost equal tokens: top-p 0.9 keeps about 1,800, far more than the 256 looked at first.
    logits_V = torch.linspace(0, 0.01, 2000)
    drawn, _ = draw(
        logits_V.repeat(4000, 1), torch.linspace(0, BELOW_ONE, 4000, dtype=torch.float64), Sampling(top_p=0.9)
    )
    assert 1780 < len(set(drawn.tolist())) < 1820
    assert min(drawn.tolist()) > 180  # the tail that is cut is the improbable one


def test_a_flat_neighbour_does_not_change_a_peaked_row() -> None:
    peaked, flat = torch.linspace(0, 30, 2000), torch.zeros(2000)
    uniform = torch.tensor([0.37], dtype=torch.float64)
    alone, _ = draw(peaked[None].clone(), uniform, Sampling(top_p=0.9))
    beside, _ = draw(torch.stack([peaked, flat]), uniform.repeat(2), Sampling(top_p=0.9))
    assert alone[0] == beside[0]


@pytest.mark.parametrize("size", [1, 4, 255, 256, 257, 303, 512, 513, 1025])
def test_zero_weight_head_and_tail_are_never_drawn(size: int) -> None:
    """u = 0 and a leading zero weight is the classic: searchsorted on the left picks an impossible token."""
    for first in {0, size // 3, min(255, size - 1), min(256, size - 1), size - 1}:
        for last in {first, min(first + 1, size - 1)}:
            weights = torch.zeros(3, size)
            weights[:, first] = 0.1
            weights[:, last] = 0.3
            drawn, _ = inverse_cdf(weights, torch.tensor([0.0, 0.5, BELOW_ONE], dtype=torch.float64))
            assert drawn.tolist() == [first, last, last]


@pytest.mark.parametrize("size", [5, 300, 1000])
def test_inverse_cdf_is_the_float64_cumulative_sum(size: int) -> None:
    rng = np.random.default_rng(size)
    weights = (rng.random((200, size)) * (rng.random((200, size)) < 0.2)).astype(np.float32)
    weights[:, rng.integers(size)] += 0.01  # no row without a possible token
    cumulative = weights.astype(np.float64).cumsum(-1)
    total = cumulative[:, -1:]
    # Every row at a random point, and exactly at one of its own steps, where rounding decides.
    steps = np.take_along_axis(cumulative, rng.integers(0, size, (200, 1)), -1) / total
    for uniforms in (rng.random((200, 1)), np.clip(steps, 0.0, BELOW_ONE)):
        drawn = inverse_cdf(torch.tensor(weights), torch.tensor(uniforms[:, 0]))[0].numpy()
        assert (weights[np.arange(200), drawn] > 0).all()
        reached = cumulative[np.arange(200), drawn]
        before = reached - weights[np.arange(200), drawn]
        threshold = (uniforms * total)[:, 0]
        assert (before <= threshold + 1e-5).all() and (threshold < reached + 1e-5).all()


def test_rounding_between_chunk_sum_and_entries_never_reaches_a_zero_weight() -> None:
    """A float32 chunk sum may exceed the sum of its entries; a threshold in that gap overshoots the chunk."""
    rng = np.random.default_rng(0)
    met = 0
    for _ in range(200):
        weights = np.zeros((1, 512), np.float32)
        weights[0, :200] = rng.random(200)  # the chunk's last 56 entries are impossible
        weights[0, 300] = 1.0
        tensor = torch.tensor(weights)
        rounded, exact = float(tensor[0, :256].sum()), float(weights[0, :256].astype(np.float64).sum())
        if rounded <= exact:
            continue
        met += 1
        threshold = exact + 0.5 * (rounded - exact)
        total = float(torch.stack([tensor[0, :256].sum(), tensor[0, 256:].sum()]).double().sum())
        drawn, _ = inverse_cdf(tensor, torch.tensor([threshold / total], dtype=torch.float64))
        assert drawn.item() in (199, 300)
    assert met > 20
