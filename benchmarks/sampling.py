"""Sampling: `LocalEngine.generate` against `model.generate`, on the same weights and prompts.

Useful tokens are the tokens that were sampled, a stop token included; what a side computes for finished rows
or for padding does not count. Prompt tokens do not count either, their time does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from msgspec import Struct

from benchmarks.compare import Timed, fastest
from benchmarks.work import Prompt, never_stopping, requests
from selfrefine.config import Sampling
from selfrefine.engines.local import LocalEngine


class Job(Struct, frozen=True, kw_only=True):
    """n samples for each prompt. fixed: every answer has exactly max_new_tokens, none stops."""

    n: int
    max_new_tokens: int
    fixed: bool


class Setting(Struct, frozen=True, kw_only=True):
    """How `model.generate` is called: rows per call, kind of cache ("dynamic" or "static")."""

    rows: int
    cache: str

    def __str__(self) -> str:
        return f"{self.rows} rows per call, {self.cache} cache"


def ours(engine: LocalEngine, prompts: Sequence[Prompt], job: Job, run: int) -> Timed:
    asked = requests(prompts, job.n, run)
    sampling = Sampling(max_new_tokens=job.max_new_tokens)
    if job.fixed:
        with never_stopping(engine):
            return _consume(engine, asked, sampling)
    return _consume(engine, asked, sampling)


def _consume(engine: LocalEngine, asked: Sequence[Any], sampling: Sampling) -> Timed:
    begun = time.perf_counter()
    tokens = sum(len(done.token_ids) for batch in engine.generate(asked, sampling) for done in batch)
    return Timed(tokens=tokens, seconds=time.perf_counter() - begun)


class Peer(NamedTuple):
    """A plain transformers model and the ids both sides stop at."""

    model: Any
    stop_ids: Sequence[int]
    pad_id: int


def peer(
    plain: Peer,
    prompts: Sequence[Prompt],
    job: Job,
    setting: Setting,
    run: int,
) -> Timed:
    """`model.generate` in sampling mode, prompts sorted by length and padded on the left.

    Rows are handed over as num_return_sequences where a call holds whole prompts. Without stop ids there is
    no stopping and no masking of the end token: the cheapest way to exact lengths.
    """
    from transformers import GenerationConfig

    torch.manual_seed(run)
    stop_ids = [] if job.fixed else sorted(plain.stop_ids)
    plain.model.generation_config = GenerationConfig(  # whole, or the model's own would fill what is None
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=job.max_new_tokens,
        num_return_sequences=job.n,
        eos_token_id=stop_ids or None,
        pad_token_id=plain.pad_id,
        cache_implementation="static" if setting.cache == "static" else None,
    )
    stop = torch.tensor(stop_ids, dtype=torch.long)
    tokens = 0
    begun = time.perf_counter()
    for ids, mask in _batches(prompts, max(1, setting.rows // job.n), plain.pad_id):
        out = plain.model.generate(input_ids=ids, attention_mask=mask)
        tokens += _sampled(out[:, ids.shape[1] :], stop)
    return Timed(tokens=tokens, seconds=time.perf_counter() - begun)


def _batches(prompts: Sequence[Prompt], size: int, pad: int) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    ordered = sorted((prompt.ids for prompt in prompts), key=len)
    for at in range(0, len(ordered), size):
        chunk = ordered[at : at + size]
        longest = max(map(len, chunk))
        ids = torch.full((len(chunk), longest), pad, dtype=torch.long)
        mask = torch.zeros((len(chunk), longest), dtype=torch.long)
        for row, prompt in enumerate(chunk):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        yield ids, mask


def _sampled(new: torch.Tensor, stop: torch.Tensor) -> int:
    """Tokens up to and with the first stop token of each row [B, T]; padding behind it does not count."""
    if not len(stop):
        return new.numel()
    ended = torch.isin(new, stop).int()
    before_or_at = ended.cumsum(-1) - ended == 0
    return int(before_or_at.sum())


def best_setting(
    plain: Peer,
    prompts: Sequence[Prompt],
    job: Job,
    settings: Sequence[Setting],
    say: Callable[[str], None],
) -> tuple[Setting, dict[str, float]]:
    """The fastest way to call `model.generate` for this job, tried once each on one call's worth of prompts.

    Fixed lengths are tried with half of the new tokens, every kind of call shortened alike.
    """
    new = max(1, job.max_new_tokens // 2) if job.fixed else job.max_new_tokens
    trial = Job(n=job.n, max_new_tokens=new, fixed=job.fixed)
    by_name = {str(setting): setting for setting in settings}

    def rate(name: str) -> float:
        enough = prompts[: max(1, by_name[name].rows // job.n)]
        found = peer(plain, enough, trial, by_name[name], 0).rate
        say(f"model.generate, {name}: {found:.0f} tokens/s")
        return found

    best, rates = fastest(list(by_name), rate)
    return by_name[best], rates
