"""Items, policies that are far apart, and what is known of them before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from selfrefine.compute.device import token_budget
from selfrefine.config import LoraConfig, ObjectiveConfig, TrainConfig
from selfrefine.engines.local import LocalEngine
from selfrefine.layers import objective_settings
from selfrefine.objectives import OBJECTIVES
from selfrefine.objectives.base import Item
from selfrefine.steps.finetune import NoCheckpoints
from selfrefine.training.loop import StepLog, train
from selfrefine.training.precomputed import fix

LORA = LoraConfig(r=4)


def answers(engine: LocalEngine) -> list[Item]:
    """Two prompts with four answers each, ragged, a pair and a label and a reward on every one."""
    texts = ["42", "the answer is 42", "no", "so the sum of the two is 17"]
    made = []
    for p, question in enumerate(("what is 17 + 25?", "the question was what")):
        prompt = engine.encode_text(question)
        for i, text in enumerate(texts):
            made.append(
                Item(
                    id=f"{p}.{i}",
                    prompt_token_ids=prompt,
                    completion_token_ids=engine.encode_answer(text),
                    reward=(i * (p + 1) % 4) / 3,
                    role="chosen" if i % 2 else "rejected",
                    pair=f"{p}.{i // 2}",
                    group="g",
                    teacher_prompt_token_ids=engine.encode_text(f"{question} it is {17 + i % 2}"),
                )
            )
    return made


def scored(engine: LocalEngine, adapter: Path | None, items: Sequence[Item]) -> list[tuple[float, ...]]:
    """By the engine that samples, which merges adapters: another way to the same numbers."""
    engine.use_adapter(adapter)
    found = engine.score([i.prompt_token_ids for i in items], [i.completion_token_ids for i in items])
    engine.use_adapter(None)
    return found


def fixed(
    engine: LocalEngine,
    items: Sequence[Item],
    own: ObjectiveConfig,
    *,
    start: Path | None = None,
    sampler: Path | None = None,
    reference: Path | None = None,
    budget: int = 64,
) -> list[Item]:
    with engine.trainer().open(start, LORA, 3) as wrapped:
        return fix(
            wrapped,
            items,
            OBJECTIVES.get(own.name),
            objective_settings(own),
            budget,
            lambda folder: engine.trainer().as_policy(wrapped, folder),
            sampler=sampler,
            reference=reference,
        )


def trained(
    engine: LocalEngine,
    items: Sequence[Item],
    own: ObjectiveConfig,
    *,
    start: Path | None = None,
    sampler: Path | None = None,
    reference: Path | None = None,
    store: Any = None,
    on_step: Any = lambda row, total: None,
    out: Path | None = None,
    grads: dict[str, torch.Tensor] | None = None,
    **settings: Any,
) -> list[StepLog]:
    config = TrainConfig(**{"lora": LORA, "warmup": 0.0, "schedule": "constant", "batch_size": 8} | settings)
    kind = OBJECTIVES.get(own.name)
    with engine.trainer().open(start, config.lora, 3) as wrapped:
        made = fix(
            wrapped,
            items,
            kind,
            objective_settings(own),
            token_budget(config, "cpu"),
            lambda folder: engine.trainer().as_policy(wrapped, folder),
            sampler=sampler,
            reference=reference,
        )
        store = store or NoCheckpoints()
        log = train(wrapped, made, kind, config, 3, store, on_step, objective_settings(own))
        if out is not None:
            engine.trainer().save(wrapped, out)
        if grads is not None:
            grads |= {n: p.grad.clone() for n, p in wrapped.named_parameters() if p.grad is not None}
    return log


def close(found: Sequence[Any], expected: Sequence[tuple[float, ...]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert list(one) == pytest.approx(list(other), abs=2e-4)
