"""Rows that share their prompt against rows of their own: the same pairs, forward and backward.

Both sides are our code; the first takes plain rows where nothing is to be shared. A dense mask over all
siblings loses from 8 x 256 tokens on; attention family by family must not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import work
from benchmarks.compare import ratio
from benchmarks.context import Context
from benchmarks.records import Section, Table
from selfrefine.compute import forward
from selfrefine.compute.packing import Pair
from selfrefine.config import TrainConfig

PROMPT = 50
SHAPES = ((1, 64), (8, 16), (8, 64), (4, 256), (8, 256), (2, 512), (8, 512))
"""(completions of one prompt, tokens of each)."""
REPEATS = 3

Forward = Callable[[Any, Sequence[Pair]], Any]


def shared_against_plain(context: Context) -> Section:
    context.measure_product()
    shapes = ((2, 8),) if context.quick else SHAPES
    body = []
    with context.engine.trainer().open(None, TrainConfig().lora, work.SEED) as model:
        model.train()
        for n, tokens in shapes:
            rows = work.made_up(PROMPT, 1, n, tokens, model.config.vocab_size)
            pairs = [(row.prompt_token_ids or (), row.token_ids) for row in rows]
            sides: tuple[Forward, Forward] = (forward.completion_logprobs, forward._padded_rows)
            for side in sides:
                _seconds(side, model, pairs)  # warm-up
            timed = [[_seconds(side, model, pairs) for side in sides] for _ in range(REPEATS)]
            found = ratio([1 / shared for shared, _ in timed], [1 / plain for _, plain in timed])
            body.append((f"{n} × {tokens}", f"{found.median:.2f}×", f"{found.low:.2f} to {found.high:.2f}"))
            context.say(f"{n} x {tokens}: {found.median:.2f}")
    context.measure_product()
    table = Table(
        title="Shared rows against separate rows",
        text=f"Speed of one forward and backward pass over completions that share one prompt of {PROMPT} "
        f"tokens, relative to as many padded rows; {REPEATS} pairs, in turn.",
        head=("completions × tokens", "faster", "pairs"),
        rows=tuple(body),
    )
    return context.section(tables=(table,))


def _seconds(side: Forward, model: Any, pairs: Sequence[Pair]) -> float:
    begun = time.perf_counter()
    rows = side(model, pairs)
    sum(row.sum() for row in rows).backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - begun
