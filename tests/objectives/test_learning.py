"""Every objective that learns from rewards does: a bandit with 303 arms, one token an answer, rewarded where
its id is even.

From sampling to the adapter, three rounds, each continuing the adapter of the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny
import torch
from msgspec.structs import replace

from selfrefine.config import GenerateConfig, LoraConfig, ObjectiveConfig, TrainConfig
from selfrefine.engines.local import LocalEngine
from selfrefine.objectives import OBJECTIVES
from selfrefine.records import Lesson, Message, Sample, Task, groups
from selfrefine.steps.finetune import FinetuneSummary, Policies, finetune
from selfrefine.steps.generate import generate

QUESTIONS = ("what is 17", "the answer", "and so", "again")
TASKS = [Task(id=f"t{i}", prompt=(Message(role="user", content=q),)) for i, q in enumerate(QUESTIONS)]
ROUNDS = 3


def pull(engine: LocalEngine, k: int) -> list[Sample]:
    """16 one-token answers to each question, scored."""
    settings = GenerateConfig(n=16, max_new_tokens=1)
    rows = generate(TASKS, engine, settings, 1, round_index=k)
    return [replace(row, reward=float(row.token_ids[0] % 2 == 0)) for row in rows]


def lessons(rows: list[Sample], name: str) -> list[Sample]:
    """As `select` would make them for this objective."""
    if name == "sft":
        return [row for row in rows if row.reward]
    if OBJECTIVES.get(name).rows == "labels":
        return [replace(r, lesson=Lesson(role="chosen" if r.reward else "rejected")) for r in rows]
    if OBJECTIVES.get(name).rows != "pairs":
        return rows
    made = []
    for group in groups(rows):
        good, bad = ([r for r in group if r.reward == value] for value in (1.0, 0.0))
        for better, worse in zip(good, bad, strict=False):
            made.append(replace(better, lesson=Lesson(role="chosen", pair=better.id)))
            made.append(replace(worse, lesson=Lesson(role="rejected", pair=better.id)))
    return made


def probability(engine: LocalEngine) -> float:
    """Of an even token, exactly, as a mean over the questions."""
    with torch.inference_mode():
        tables = [
            engine.model(torch.tensor([engine.encode_chat(task.prompt)])).logits[0, -1].softmax(-1)
            for task in TASKS
        ]
    return float(torch.stack(tables)[:, 0::2].sum(-1).mean())


def keeper(folder: Path) -> tuple[Callable[..., object], list[dict[str, Any]]]:
    log: list[dict[str, Any]] = []

    def keep(trained: FinetuneSummary, lines: list[bytes], save: Callable[[Path], None]) -> None:
        log.extend(msgspec.json.decode(line) for line in lines)
        save(folder)

    return keep, log


SETTINGS: dict[str, dict[str, Any]] = {
    "dpo": {"beta": 0.3},
    "ipo": {"beta": 0.1},
    "kto": {"beta": 0.3},
    "grpo": {"kl": 0.01},
}


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if not OBJECTIVES.get(name).teacher])
def test_the_rewarded_tokens_become_probable_and_the_base_stays(name: str, tmp_path: Path) -> None:
    engine = tiny.engine()
    before = {key: tensor.clone() for key, tensor in engine.model.state_dict().items()}
    at_first = probability(engine)
    config = TrainConfig(lr=0.01, epochs=4, batch_size=16, warmup=0.0, lora=LoraConfig(r=4))
    own = ObjectiveConfig(name=name, settings=SETTINGS)
    adapter: Path | None = None
    for k in range(1, ROUNDS + 1):
        engine.use_adapter(adapter)
        rows = lessons(pull(engine, k), name)
        keep, log = keeper(tmp_path / str(k))
        policies = Policies(start=adapter, sampler=adapter)
        told, _ = finetune(rows, engine.trainer(), config, own, 1, keep, round_index=k, policies=policies)
        adapter = tmp_path / str(k)
        check(name, told, log)
    assert probability(engine) == at_first
    now = engine.model.state_dict()
    assert now.keys() == before.keys() and all(torch.equal(now[key], before[key]) for key in now)
    engine.use_adapter(adapter)
    assert probability(engine) > at_first + 0.15


def check(name: str, told: FinetuneSummary, log: list[dict[str, Any]]) -> None:
    """Every row that sampling gave was of use, and ratios of fresh samples are one without being computed."""
    first = log[0]["metrics"]
    assert told.edited == 0 and told.rows >= 16
    if name in {"reinforce", "rloo", "grpo"}:
        assert first["ratio_max"] == pytest.approx(1.0, abs=1e-3)
        assert first["clip_share"] == 0.0 and 0.0 < first["entropy"] < 6.0
        assert name == "grpo" or first["kl"] == pytest.approx(0.0, abs=1e-3)  # from what sampled
    if OBJECTIVES.get(name).rows == "pairs":
        assert log[-1]["metrics"]["accuracy"] > 0.7
