"""The jobs both sides are given: the demo's own prompts, and answers the embedded model gave to them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from selfrefine.config import Config, Sampling
from selfrefine.engines.base import Request
from selfrefine.engines.load import load_engine
from selfrefine.engines.load import resolve as resolve_model
from selfrefine.engines.local import LocalEngine
from selfrefine.layers import read_toml, resolve
from selfrefine.records import Sample, Task
from selfrefine.seeds import derive
from selfrefine.stages.prepare import make_splits

DEMO = Path(__file__).parent.parent / "selfrefine" / "configs" / "demo.toml"
SEED = 20_231


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A task and its chat as token ids, the model's template included."""

    task: Task
    ids: tuple[int, ...]


def load(model: str) -> LocalEngine:
    """The engine on the model both sides use. Raises: ValueError for one without weights."""
    engine = load_engine(model)
    if not isinstance(engine, LocalEngine):
        raise ValueError(f"--model {model}: a benchmark needs weights")
    return engine


def load_plain(model: str) -> Any:
    """The same weights as a transformers model of their own, in float32: what a peer works on."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(
        str(resolve_model(model)[0]), dtype=torch.float32, local_files_only=True
    )
    return loaded.eval()


def load_tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(resolve_model(model)[0]), local_files_only=True)


def demo_config() -> Config:
    return resolve([("file", read_toml(DEMO))]).config


def demo_prompts(engine: LocalEngine, count: int) -> list[Prompt]:
    """The first `count` distinct training tasks of `make demo` (chain_sum), as the model sees them."""
    tasks = make_splits(demo_config())["train"][:count]
    return [Prompt(task=task, ids=tuple(engine.encode_chat(task.prompt))) for task in tasks]


@contextmanager
def never_stopping(engine: LocalEngine) -> Iterator[None]:
    """Inside, no token ends an answer, so that each has exactly max_new_tokens."""
    before = engine.stop_ids
    engine.stop_ids = frozenset()
    try:
        yield
    finally:
        engine.stop_ids = before


def requests(prompts: Sequence[Prompt], n: int, run: int) -> list[Request]:
    """n samples for each prompt; `run` makes the draws of one repeat differ from another's."""
    return [
        Request(
            prompt_token_ids=prompt.ids,
            seeds=tuple(derive(SEED, "bench", run, prompt.task.id, k) for k in range(n)),
        )
        for prompt in prompts
    ]


def answers(engine: LocalEngine, prompts: Sequence[Prompt], n: int, max_new_tokens: int) -> list[Sample]:
    """n answers to each prompt that end by themselves: what a fine-tune would be given, right or wrong.

    Samples until each prompt has n; rows cut off by `max_new_tokens` are left out, as in the loop itself.
    """
    found: dict[int, list[Sample]] = {at: [] for at in range(len(prompts))}
    for run in itertools.count():
        missing = [at for at, rows in found.items() if len(rows) < n]
        if not missing or run == 8:
            break
        asked = requests([prompts[at] for at in missing], 2 * n, run)
        for batch in engine.generate(asked, Sampling(max_new_tokens=max_new_tokens)):
            for done in batch:
                if done.finish_reason == "stop":
                    at = missing[done.request]
                    found[at].append(_row(prompts[at], len(found[at]), done.text, done.token_ids))
    short = [prompts[at].task.id for at, rows in found.items() if len(rows) < n]
    if short:
        raise ValueError(f"{len(short)} prompts never got {n} answers that end by themselves")
    return [row for rows in found.values() for row in rows[:n]]


def made_up(
    prompt_tokens: int, prompts: int, n: int, completion_tokens: int, vocabulary: int
) -> list[Sample]:
    """Rows of random ids with exact lengths, for tables over lengths. No two prompts begin alike."""
    from selfrefine.seeds import generator

    draws = generator(derive(SEED, "ids", prompt_tokens, prompts, n))
    rows = []
    for at in range(prompts):
        ids = tuple(draws.integers(10, vocabulary, prompt_tokens).tolist())
        task = Task(id=f"made-up-{at}", prompt=())
        for k in range(n):
            tokens = tuple(draws.integers(10, vocabulary, completion_tokens).tolist())
            rows.append(_row(Prompt(task=task, ids=ids), k, "", tokens))
    return rows


def with_text(engine: LocalEngine, rows: Sequence[Sample]) -> list[Sample]:
    """The rows with the text their ids decode to, so that `finetune` takes the ids as they are."""
    return [msgspec.structs.replace(row, text=engine.decode(row.token_ids)) for row in rows]


def _row(prompt: Prompt, index: int, text: str, token_ids: tuple[int, ...]) -> Sample:
    return Sample(
        id=f"{prompt.task.id}.r1.s{index}",
        task=prompt.task,
        prompt_token_ids=prompt.ids,
        round=1,
        index=index,
        text=text,
        token_ids=token_ids,
        reward=1.0,
    )


def trained_tokens(rows: Sequence[Sample]) -> int:
    """Prompt + completion tokens with each row counted by itself: the same count for either side."""
    return sum(len(row.prompt_token_ids) + len(row.token_ids) for row in rows)


def parameters(model: Any) -> int:
    """Weights that take part in a matrix product for each token: all of them, tied ones once."""
    return sum(p.numel() for p in model.parameters())
