"""Throughput against load: our side alone, over rows, lengths of prompts and completions per prompt."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks import training, work
from benchmarks.compare import Timed
from benchmarks.context import FLOPS_TRAINED, Context
from benchmarks.records import Section, Table, percent
from benchmarks.work import never_stopping
from selfrefine.config import Sampling
from selfrefine.engines.base import Request
from selfrefine.seeds import derive

ROWS = (1, 8, 32, 128, 512)
PROMPT_TOKENS = (32, 128, 512, 2048)
SAMPLES = 8
"""Samples of one prompt; a single row is a single prompt."""
NEW_TOKENS = 16
MOST_PROMPT_TOKENS = 10_000
"""Of all prompts of a cell together: more would pass the time the table may take."""
COMPLETIONS = (1, 2, 4, 8, 16)
TRAIN_SHAPES = ((64, 16), (64, 128))
"""(prompt tokens, completion tokens)."""
TRAIN_TOKENS = 1_024
"""Useful tokens of a cell, roughly."""
NOT_RUN = "–"


def sampling_load(context: Context) -> Section:
    context.measure_product()
    rows_axis, lengths = ((1, 8), (8, 16)) if context.quick else (ROWS, PROMPT_TOKENS)
    new = 2 if context.quick else NEW_TOKENS
    _sample(context, 8, min(lengths), new)  # warm-up
    body = []
    for length in lengths:
        cells = []
        for count in rows_axis:
            if _prompts(count) * length > MOST_PROMPT_TOKENS or context.out_of_time:
                cells.append(NOT_RUN)
                continue
            timed = _sample(context, count, length, new)
            cells.append(_cell(timed))
            context.say(f"{count} rows, prompts of {length}: {timed.rate:.0f} tokens/s")
        body.append((f"{length:,}", *cells))
    table = Table(
        title="Sampling against load",
        text=f"Sampled tokens per second (milliseconds per token). {new} new tokens per row, prompts of "
        f"random ids without common beginnings, {SAMPLES} samples per prompt (1 row: 1 prompt); the time "
        f"includes prefill. {NOT_RUN}: not run, over {MOST_PROMPT_TOKENS:,} prompt tokens or out of time.",
        head=("prompt tokens", *(f"{count} row{'s' * (count > 1)}" for count in rows_axis)),
        rows=tuple(body),
    )
    return context.section(tables=(table,))


def _prompts(rows: int) -> int:
    return max(1, rows // SAMPLES)


def _sample(context: Context, rows: int, length: int, new: int) -> Timed:
    engine = context.engine
    prompts = _prompts(rows)
    made = work.made_up(length, prompts, 1, 1, engine.model.config.vocab_size)
    asked = [
        Request(
            prompt_token_ids=row.prompt_token_ids,
            seeds=tuple(derive(work.SEED, "load", rows, length, at, k) for k in range(rows // prompts)),
        )
        for at, row in enumerate(made)
    ]
    with never_stopping(engine):
        begun = time.perf_counter()
        done = sum(len(c.token_ids) for b in engine.generate(asked, Sampling(max_new_tokens=new)) for c in b)
        return Timed(tokens=done, seconds=time.perf_counter() - begun)


def training_load(context: Context) -> Section:
    context.measure_product()
    shapes: Sequence[tuple[int, int]] = ((8, 4),) if context.quick else TRAIN_SHAPES
    completions = COMPLETIONS[:2] if context.quick else COMPLETIONS
    tokens = 24 if context.quick else TRAIN_TOKENS
    _train(context, *shapes[0], 1, tokens)  # warm-up
    body = []
    for prompt, completion in shapes:
        cells = []
        for n in completions:
            if context.out_of_time:
                cells.append(NOT_RUN)
                continue
            timed = _train(context, prompt, completion, n, tokens)
            share = context.share(timed.rate, FLOPS_TRAINED)
            cells.append(f"{_cell(timed)} {percent(share)}")
            context.say(f"{prompt} + {completion} tokens, {n} per prompt: {timed.rate:.0f} tokens/s")
        body.append((f"{prompt} + {completion}", *cells))
    table = Table(
        title="Training against load",
        text="Prompt + completion tokens of all rows per second (milliseconds per token), and the useful "
        "FLOPs as a share of the matrix-product rate. One optimizer step over about "
        f"{tokens:,} such tokens, including attaching the adapter; prompts of random ids without common "
        "beginnings.",
        head=("prompt + completion", *(f"{n} per prompt" for n in completions)),
        rows=tuple(body),
    )
    return context.section(tables=(table,))


def _train(context: Context, prompt: int, completion: int, n: int, tokens: int) -> Timed:
    prompts = max(1, round(tokens / (n * (prompt + completion))))
    made = work.made_up(prompt, prompts, n, completion, context.engine.model.config.vocab_size)
    rows = work.with_text(context.engine, made)
    return training.ours(context.engine, rows, training.with_batch(training.SETTINGS, len(rows))).timed


def _cell(timed: Timed) -> str:
    return f"{timed.rate:,.0f} ({1000 / timed.rate:.1f})"
