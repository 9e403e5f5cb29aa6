"""The decoder against `model.generate`, against exact probabilities, and against itself in other company.

Models run in float64, so that a token never hangs on the order of a sum.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scipy.stats import chisquare  # type: ignore[import-untyped]

from selfrefine.compute.device import SLACK, Budget
from selfrefine.config import Sampling
from selfrefine.errors import EngineError
from selfrefine.sampling import decode as decoding
from selfrefine.sampling.cache import SlotCache
from selfrefine.sampling.decode import Job, Live, decode

END = 302
Rules = tuple[Sampling, Sequence[int]]
WIDE = Budget(rows=64, tokens=100_000, prefill_tokens=4_096)


def rules(tokens: int, stop: Sequence[int] = (END,), temperature: float = 0.0, **how: Any) -> Rules:
    """Greedy unless told otherwise."""
    return Sampling(max_new_tokens=tokens, temperature=temperature, **how), stop


def prompts(count: int, longest: int) -> list[list[int]]:
    """Ragged: lengths from 1 to `longest`, both among them."""
    rng = random.Random(count * 1000 + longest)
    lengths = [1, longest, *(rng.randint(1, longest) for _ in range(count - 2))]
    return [[rng.randrange(300) for _ in range(n)] for n in lengths]


def run(model: Any, jobs: Sequence[Job], how: Rules, budget: Budget = WIDE) -> dict[tuple[int, int], Live]:
    """Rows by (request, index), each exactly once."""
    rows = [row for batch in decode(model, jobs, *how, budget, pad_id=END) for row in batch]
    found = {(row.request, row.index): row for row in rows}
    assert len(found) == len(rows) == sum(len(job.seeds) for job in jobs)
    return found


def reference(model: Any, prompt: list[int], tokens: int, **more: Any) -> list[int]:
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=None,
        pad_token_id=END,
        **more,
    )
    return list(out[0, len(prompt) :].tolist())


def until(stop: set[int], ids: list[int]) -> list[int]:
    """What a stop set leaves: the first stop token is kept."""
    at = next((k for k, token in enumerate(ids) if token in stop), len(ids))
    return ids[: at + 1]


def compare_with_generate(model: Any, asked: list[list[int]], tokens: int, budget: Budget) -> None:
    free = [reference(model, prompt, tokens) for prompt in asked]
    # The tokens that these three come to last: stops late enough that rows end at different times.
    stop = {max(set(ids), key=ids.index) for ids in free[:9:4]}
    found = run(model, [Job(i, p, [0]) for i, p in enumerate(asked)], rules(tokens, sorted(stop)), budget)
    for i, ids in enumerate(free):
        assert found[i, 0].token_ids == until(stop, ids), f"prompt {i}"
    assert len({len(row.token_ids) for row in found.values()}) > 2  # rows left at different times


@pytest.mark.parametrize(
    "kind", ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "gemma3n", "gpt2"]
)
def test_greedy_is_generate_token_for_token(kind: str) -> None:
    """Fewer rows than requests, prompts beyond the sliding window of 8, several stop ids."""
    model = tiny.model(kind)
    if kind != "gemma2":  # its eager attention casts float64's smallest number to float32: -inf, then NaN
        model = model.double()
    compare_with_generate(model, prompts(9, 30), 24, Budget(rows=4, tokens=10_000, prefill_tokens=64))


def test_a_repetition_penalty_is_generate_s_token_for_token() -> None:
    """Over prompts, over answers, and over rows that move when others leave: three for nine requests."""
    model = tiny.model().double()
    asked = prompts(9, 30)
    free = [reference(model, prompt, 24, repetition_penalty=1.4) for prompt in asked]
    stop = {max(set(ids), key=ids.index) for ids in free[:9:4]}
    jobs = [Job(i, prompt, [0, 1]) for i, prompt in enumerate(asked)]
    found = run(model, jobs, rules(24, sorted(stop), repetition_penalty=1.4), Budget(4, 10_000, 64))
    for i, ids in enumerate(free):
        assert found[i, 0].token_ids == found[i, 1].token_ids == until(stop, ids), f"prompt {i}"
    assert len({len(row.token_ids) for row in found.values()}) > 2
    assert free != [reference(model, prompt, 24) for prompt in asked]


@pytest.mark.parametrize(("kind", "seed"), [("llama", 3), ("gemma3", 1)])  # seeds that do not soon repeat
def test_greedy_is_generate_across_cache_shifts(
    kind: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rows for twelve requests: the shared column runs past the allocation and is shifted back."""
    shifts: list[int] = []
    shift = SlotCache.shift

    def watched(self: SlotCache, by: int) -> None:
        shifts.append(by)
        shift(self, by)

    monkeypatch.setattr(SlotCache, "shift", watched)
    budget = Budget(rows=3, tokens=10_000, prefill_tokens=64)
    compare_with_generate(tiny.model(kind, seed=seed).double(), prompts(12, 25), 80, budget)
    assert len(shifts) >= 2 and min(shifts) >= SLACK


def test_a_shift_leaves_room_for_the_longest_prompt_to_come() -> None:
    """Shifted as far as the short rows allow, the last prompt would begin before the first column."""
    model = tiny.model(seed=3).double()
    asked = [[5], [6], [7], prompts(2, 60)[1]]
    found = run(model, [Job(i, p, [0]) for i, p in enumerate(asked)], rules(40, ()), Budget(1, 1000, 64))
    for i, prompt in enumerate(asked):
        assert found[i, 0].token_ids == reference(model, prompt, 40), f"prompt {i}"


def test_a_row_as_long_as_the_allocation_allows() -> None:
    """One row, no company, every token of the budget of new ones used: nothing is written out of bounds."""
    model = tiny.model().double()
    prompt = prompts(2, 12)[1]
    tokens = 3 * SLACK
    [row] = run(model, [Job(0, prompt, [5])], rules(tokens, [])).values()
    assert row.token_ids == reference(model, prompt, tokens)


def test_first_and_second_token_follow_the_exact_probabilities() -> None:
    """4,000 samples of one prompt: the first token comes out of the prefill, the second out of the cache."""
    model = tiny.model("llama", vocabulary=11, eos_token_id=None, initializer_range=0.15).double()
    prompt = [1, 4, 9]
    warm: dict[str, Any] = {"temperature": 0.7, "top_k": 6, "top_p": 0.9}
    found = run(
        model,
        [Job(0, prompt, list(range(4000)))],
        rules(2, (), **warm),
        Budget(rows=512, tokens=100_000, prefill_tokens=64),
    )
    first_V = exact(model, prompt, **warm)
    second_V: Any = sum(first_V[t] * exact(model, [*prompt, t], **warm) for t in range(11) if first_V[t] > 0)
    for place, expected_V in enumerate((first_V, second_V)):
        counts = np.bincount([row.token_ids[place] for row in found.values()], minlength=11)
        possible = expected_V > 1e-12
        assert not counts[~possible].any()
        assert chisquare(counts[possible], 4000 * expected_V[possible]).pvalue > 1e-4
    assert (first_V == 0).any()  # there was something to truncate


def exact(model: Any, prompt: list[int], temperature: float, top_k: int, top_p: float) -> Any:
    """The truncated distribution by plain sorting, in numpy."""
    with torch.no_grad():
        logits_V = model(torch.tensor([prompt])).logits[0, -1].numpy()
    weights_V = np.exp((logits_V - logits_V.max()) / temperature)
    order = np.argsort(-weights_V)[:top_k]
    kept = weights_V[order] / weights_V[order].sum()
    kept = np.where(np.cumsum(kept) - kept < top_p, kept, 0.0)
    result = np.zeros_like(weights_V)
    result[order] = kept / kept.sum()
    return result


def sampled_jobs(count: int, copies: int = 1) -> list[Job]:
    return [Job(i, p, [1000 * i + k for k in range(copies)]) for i, p in enumerate(prompts(count, 20))]


def test_samples_do_not_depend_on_company_or_order() -> None:
    """The trap: one generator for the whole batch, so that a row's draw depends on how many came before."""
    model = tiny.model().double()
    how = rules(20, [END, *range(0, 300, 20)], temperature=1.0, top_p=0.95)
    jobs = sampled_jobs(40)
    together = run(model, jobs, how)
    backwards = run(model, jobs[::-1], how, Budget(rows=7, tokens=100_000, prefill_tokens=50))
    for job in jobs[::4]:
        alone = run(model, [job], how)[job.request, 0]
        for other in (together, backwards):
            assert other[job.request, 0].token_ids == alone.token_ids
            assert other[job.request, 0].logprobs == pytest.approx(alone.logprobs, abs=1e-6)


def test_n_samples_are_the_same_as_n_requests() -> None:
    """A prompt is computed once and fanned out; seven samples on three rows come as three jobs."""
    model = tiny.model("gemma3").double()
    how = rules(12, [END, *range(0, 300, 20)], temperature=1.0)
    prompt = prompts(3, 20)[1]
    fanned = run(model, [Job(0, prompt, list(range(7)))], how, Budget(3, 100_000, 64))
    assert len({tuple(row.token_ids) for row in fanned.values()}) > 4  # seeds make them differ
    for k in range(7):
        [alone] = run(model, [Job(0, prompt, [k])], how).values()
        assert fanned[0, k].token_ids == alone.token_ids


def test_logprobs_are_at_temperature_one_whatever_the_draw() -> None:
    model = tiny.model().double()
    prompt = prompts(3, 9)[1]
    [row] = run(model, [Job(0, prompt, [3])], rules(6, (), temperature=0.5, top_k=3)).values()
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *row.token_ids]])).logits[0].log_softmax(-1)
    expected = [logits[len(prompt) - 1 + k, t].item() for k, t in enumerate(row.token_ids)]
    assert row.logprobs == pytest.approx(expected, abs=1e-5)


def test_prefill_is_cut_by_its_budget_and_rows_by_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory follows these constants: no forward may be wider than they say."""
    shapes: list[tuple[int, int]] = []
    forward, prefill = decoding._Decoder._forward, decoding._Decoder._prefill

    def watched(self: Any, ids: torch.Tensor, *rest: Any) -> Any:
        shapes.append((ids.shape[0], ids.shape[1]))
        return forward(self, ids, *rest)

    def watched_prefill(self: Any, prompts: Any) -> Any:
        shapes.append((len(prompts), max(map(len, prompts))))
        return prefill(self, prompts)

    monkeypatch.setattr(decoding._Decoder, "_forward", watched)
    monkeypatch.setattr(decoding._Decoder, "_prefill", watched_prefill)
    columns = 20 + 10 + SLACK
    run(tiny.model(), sampled_jobs(30), rules(10), Budget(rows=50, tokens=9 * columns, prefill_tokens=45))
    assert max(rows for rows, _ in shapes) == 9
    assert max(rows * width for rows, width in shapes if width > 1) <= 45


def test_the_head_is_asked_once_a_prompt_whatever_their_lengths() -> None:
    """A column for every length that occurs would be a table of prompts x lengths x vocabulary."""
    model = tiny.model()
    seen: list[torch.Size] = []
    model.lm_head.register_forward_hook(lambda module, inputs, out: seen.append(out.shape))
    jobs = [Job(i, [*range(5, 9 + i)], [i, i + 50]) for i in range(6)]
    run(model, jobs, rules(1, ()))
    assert seen == [(1, 6, model.config.vocab_size)]


def test_a_consumer_is_not_left_in_inference_mode() -> None:
    """Between two batches the caller may train; a `with` around the yield would forbid it backward."""
    batches = decode(tiny.model(), sampled_jobs(3, 2), *rules(5, temperature=1.0), Budget(2, 1000, 99))
    next(batches)
    assert not torch.is_inference_mode_enabled()
    list(batches)


def test_a_model_that_outputs_nan_is_an_error_not_token_zero() -> None:
    model = tiny.model()
    with torch.no_grad():
        model.lm_head.weight[7] = math.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(EngineError, match="not finite"):
            run(model, sampled_jobs(2), rules(3, temperature=temperature))


def test_no_requests_no_batches() -> None:
    assert list(decode(tiny.model(), [], *rules(3), WIDE)) == []


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_common_beginning_is_computed_once_and_changes_nothing(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of one template begin alike; their own parts, of different lengths, follow without a gap."""
    model = tiny.model(kind).double()
    rng = random.Random(5)
    common = [rng.randrange(300) for _ in range(14)]
    asked = [common + [rng.randrange(300) for _ in range(n)] for n in (1, 7, 3, 1, 12)]
    widths: list[int] = []
    prefill = decoding._Decoder._prefill

    def watched(self: Any, some: Any) -> Any:
        widths.append(len(self.prefix))
        return prefill(self, some)

    monkeypatch.setattr(decoding._Decoder, "_prefill", watched)
    jobs = [Job(i, prompt, (1, 2)) for i, prompt in enumerate(asked)]
    found = run(model, jobs, rules(9, stop=()), Budget(rows=4, tokens=10_000, prefill_tokens=64))
    assert set(widths) == {14}
    for i, prompt in enumerate(asked):
        expected = reference(model, prompt, 9)
        assert found[i, 0].token_ids == found[i, 1].token_ids == expected
