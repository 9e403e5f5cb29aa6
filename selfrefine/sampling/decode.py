"""Continuous batched decoding of a fixed list of requests on a transformers model.

Legend: B live rows, b prompts in one prefill, V vocabulary.

A prompt is prefilled once and fanned out to its n rows. Finished rows leave at once; when a quarter of the
rows is free the next prompts come in. What is decoded together is decided by the requests alone, so the
same list decodes the same way every time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from selfrefine import seeds
from selfrefine.compute.device import SLACK, Budget
from selfrefine.compute.head import head_at
from selfrefine.compute.plain import plain
from selfrefine.compute.prefix import shared_beginning
from selfrefine.config import Sampling
from selfrefine.errors import EngineError
from selfrefine.sampling.cache import SlotCache
from selfrefine.sampling.draw import draw


@dataclass
class Job:
    """One prompt and the seeds of its completions."""

    request: int
    prompt: Sequence[int]
    seeds: Sequence[int]
    first: int = 0
    """Index of the first seed (a request with more seeds than rows comes as several jobs)."""


@dataclass
class Live:
    """One row being decoded."""

    request: int
    index: int
    uniforms: np.random.Generator
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


StopCondition = Callable[[Live], bool]
"""Does this row end with its newest token, whatever that token is? (`engines.answers` looks at its text.)"""


def never(_row: Live) -> bool:
    """The stop condition of rows that end at stop tokens and at their length only."""
    return False


@torch.inference_mode()
def decode(
    model: Any,
    jobs: Sequence[Job],
    sampling: Sampling,
    stop_ids: Collection[int],
    budget: Budget,
    ends: StopCondition = never,
    pad_id: int = 0,
) -> Iterator[list[Live]]:
    """Yield rows as they finish: at one of `stop_ids`, which the row keeps, at `sampling.max_new_tokens`, or
    where `ends` says so (`sampling.stop` is text, and its caller's). Prompts are padded with `pad_id`.

    Raises whatever the model raises (out of memory included).

    Inference mode as a decorator: a `with` around the yields would leave the caller in it between batches.
    """
    if jobs:
        yield from _Decoder(model, jobs, sampling, stop_ids, budget, ends, pad_id).run()


class _Decoder:
    def __init__(
        self,
        model: Any,
        jobs: Sequence[Job],
        sampling: Sampling,
        stop_ids: Collection[int],
        budget: Budget,
        ends: StopCondition,
        pad_id: int,
    ) -> None:
        self.model, self.sampling, self.stop_ids, self.ends = model, sampling, stop_ids, ends
        self.device, self.pad_id = model.device, pad_id
        self.budget = budget
        longest = max(len(job.prompt) for job in jobs)
        columns = longest + sampling.max_new_tokens + SLACK
        self.longest = longest
        wanted = sum(len(job.seeds) for job in jobs)
        self.rows = max(1, min(budget.rows, budget.tokens // columns, wanted))
        self.queue = deque(_split(sorted(jobs, key=lambda job: len(job.prompt)), self.rows))
        self.cache = SlotCache(self.rows, columns, longest)
        self.live: list[Live] = []
        shared = 0 if plain() else shared_beginning([job.prompt for job in jobs])
        self.prefix = jobs[0].prompt[:shared]
        self._prefix_states: DynamicCache | None = None
        self.start_B = torch.zeros(self.rows, dtype=torch.long, device=self.device)
        self.pending_B = torch.zeros(self.rows, dtype=torch.long, device=self.device)
        self.seen_BV: torch.Tensor | None = None
        """Which tokens stand in each row, its prompt included; kept only where repeating is penalised."""

    def run(self) -> Iterator[list[Live]]:
        while self.queue or self.live:
            if self.queue and self._free() >= min(self._needed(), self.rows):
                yield from self._refill()
            if self.live:
                finished = self._step()
                if finished:
                    yield finished

    def _free(self) -> int:
        return self.rows - len(self.live)

    def _needed(self) -> int:
        """Free rows that make a prefill worth its interruption: a quarter, and room for the next prompt."""
        return max(len(self.queue[0].seeds), self.rows // 4)

    def _refill(self) -> Iterator[list[Live]]:
        """Prefill as many prompts as fit, in chunks of the prefill budget."""
        while self.queue and len(self.queue[0].seeds) <= self._free():
            chunk: list[Job] = []
            room = self._free()
            while self.queue and len(self.queue[0].seeds) <= room:
                longest = len(self.queue[0].prompt)
                if chunk and longest * (len(chunk) + 1) > self.budget.prefill_tokens:
                    break
                room -= len(self.queue[0].seeds)
                chunk.append(self.queue.popleft())
            finished = self._admit(chunk)
            if finished:
                yield finished

    def _admit(self, chunk: list[Job]) -> list[Live]:
        """Prefill a prompt each, fan it out to its rows, and draw their first tokens."""
        window = self.cache.window
        lengths_b = torch.tensor([len(job.prompt) for job in chunk])
        logits_bV, prefilled = self._prefill([job.prompt for job in chunk])
        repeats_b = torch.tensor([len(job.seeds) for job in chunk], device=self.device)
        first, count = len(self.live), int(repeats_b.sum())
        self.cache.lay(prefilled, repeats_b, (lengths_b.max() - lengths_b).to(self.device))
        starts_b = (window.end - lengths_b).to(self.device)
        self.start_B[first : first + count] = torch.repeat_interleave(starts_b, repeats_b)
        window.low = int(self.start_B[: first + count].min())
        rows = [
            Live(job.request, job.first + k, seeds.generator(seed))
            for job in chunk
            for k, seed in enumerate(job.seeds)
        ]
        self.live.extend(rows)
        logits_BV = torch.repeat_interleave(logits_bV, repeats_b, 0)
        if self.sampling.repetition_penalty != 1.0:
            self._see_prompts(chunk, first, logits_bV.shape[-1])
        return self._take(logits_BV, first)

    def _see_prompts(self, chunk: Sequence[Job], first: int, vocabulary: int) -> None:
        if self.seen_BV is None:
            self.seen_BV = torch.zeros((self.rows, vocabulary), dtype=torch.bool, device=self.device)
        for job in chunk:
            last = first + len(job.seeds)
            self.seen_BV[first:last] = False
            self.seen_BV[first:last, torch.tensor(job.prompt, device=self.device)] = True
            first = last

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, DynamicCache]:
        """Logits after each prompt [b, V], and keys and values [b, H, P, D], padded on the right.

        The common beginning of all prompts (system prompt, template) was computed once for all of them.
        Padding on the right is seen by nothing that counts, so no row needs a mask of its own.
        """
        shared = len(self.prefix)
        lengths_b = torch.tensor([len(prompt) for prompt in prompts])
        longest = int(lengths_b.max())
        ids_bP = torch.full((len(prompts), longest - shared), self.pad_id, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            ids_bP[i, : len(prompt) - shared] = torch.tensor(prompt[shared:])
        cache = DynamicCache()
        if shared:
            for i, layer in enumerate(self._prefix_cache().layers):
                rows = (len(prompts), -1, -1, -1)
                cache.update(layer.keys.expand(rows), layer.values.expand(rows), i)
        # The head at each prompt's last place only: `logits_to_keep` takes every length for every prompt.
        rows_b = torch.arange(len(prompts), device=self.device)
        last_b = (lengths_b - 1 - shared).to(self.device)
        with nullcontext() if plain() else head_at(self.model, rows_b, last_b):
            out = self.model(
                input_ids=ids_bP.to(self.device),
                attention_mask=torch.ones((len(prompts), longest), dtype=torch.long, device=self.device),
                position_ids=torch.arange(shared, longest, device=self.device)[None],
                past_key_values=cache,
                use_cache=True,
            )
        logits_bV = out.logits[rows_b, last_b] if plain() else out.logits[0]
        return logits_bV.float(), cache

    def _prefix_cache(self) -> DynamicCache:
        if self._prefix_states is None:
            self._prefix_states = DynamicCache()
            ids = torch.tensor([list(self.prefix)], device=self.device)
            self.model(input_ids=ids, past_key_values=self._prefix_states, use_cache=True, logits_to_keep=1)
        return self._prefix_states

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    def _step(self) -> list[Live]:
        window, count = self.cache.window, len(self.live)
        window.live = count
        if window.end == window.columns:
            # Not further than the longest prompt still to come: it must end at the current column.
            by = min(window.low, window.end - self.longest)
            self.cache.shift(by)
            self.start_B -= by
        start_B = self.start_B[:count]
        window.low = int(start_B.min())
        columns = torch.arange(window.low, window.end + 1, device=self.device)
        mask = columns[None] >= start_B[:, None]
        logits_BV = self._forward(self.pending_B[:count, None], mask, (window.end - start_B)[:, None])
        window.end += 1
        return self._take(logits_BV, 0)

    def _take(self, logits_BV: torch.Tensor, first: int) -> list[Live]:
        """Draw a token for rows [first, len(live)), record it, and let finished rows leave."""
        rows = self.live[first:]
        uniforms_B = torch.tensor([row.uniforms.random() for row in rows], dtype=torch.float64)
        most, stop_ids, ends = self.sampling.max_new_tokens, self.stop_ids, self.ends
        seen_BV = None if self.seen_BV is None else self.seen_BV[first : first + len(rows)]
        drawn_B, chosen_B = draw(logits_BV, uniforms_B, self.sampling, seen_BV)
        self.pending_B[first : first + len(rows)] = drawn_B
        if seen_BV is not None:
            seen_BV.scatter_(1, drawn_B[:, None], True)
        finished = []
        for i, (row, token, logprob) in enumerate(
            zip(rows, drawn_B.tolist(), chosen_B.tolist(), strict=True), first
        ):
            if not math.isfinite(logprob):
                raise EngineError("the model's output is not finite, so no token can be sampled")
            row.token_ids.append(token)
            row.logprobs.append(logprob)
            if token in stop_ids or len(row.token_ids) >= most or ends(row):
                finished.append(i)
        return self._leave(finished) if finished else []

    def _leave(self, finished: list[int]) -> list[Live]:
        """Close the gaps with the last live rows; only those are copied."""
        gone = [self.live[i] for i in finished]
        remaining = len(self.live) - len(finished)
        holes = [i for i in finished if i < remaining]
        ended = set(finished)
        movers = [i for i in range(remaining, len(self.live)) if i not in ended]
        if holes:
            to = torch.tensor(holes, device=self.device)
            origin = torch.tensor(movers, device=self.device)
            self.cache.move(to, origin)
            self.start_B[to] = self.start_B[origin]
            self.pending_B[to] = self.pending_B[origin]
            if self.seen_BV is not None:
                self.seen_BV[to] = self.seen_BV[origin]
            for hole, mover in zip(holes, movers, strict=True):
                self.live[hole] = self.live[mover]
        del self.live[remaining:]
        self.cache.window.live = remaining
        return gone


def _split(jobs: Sequence[Job], rows: int) -> Iterator[Job]:
    """A request with more seeds than there are rows becomes several jobs (its prompt is computed again)."""
    for job in jobs:
        for at in range(0, len(job.seeds), rows):
            yield Job(job.request, job.prompt, job.seeds[at : at + rows], job.first + at)
