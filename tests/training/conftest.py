"""A tiny model and two adapters of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from policies import LORA, answers

from selfrefine.config import LoraConfig, TrainConfig
from selfrefine.engines.local import LocalEngine
from selfrefine.objectives.sft import SFT
from selfrefine.steps.finetune import NoCheckpoints
from selfrefine.training.loop import train


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return tiny.engine()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def adapters(engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two policies that are far from the base and from each other, of different rank."""
    folder = tmp_path_factory.mktemp("adapters")
    narrow = LoraConfig(r=2, targets=("q_proj",))
    for seed, (name, lora) in enumerate((("first", LORA), ("accepted", narrow))):
        with engine.trainer().open(None, lora, seed) as wrapped:
            settings = TrainConfig(steps=15, lr=0.05, warmup=0.0, lora=lora)
            lesson = answers(engine)[seed :: 4 - seed]
            train(wrapped, lesson, SFT, settings, 0, NoCheckpoints(), lambda row, total: None)
            engine.trainer().save(wrapped, folder / name)
    return {"first": folder / "first", "accepted": folder / "accepted"}
