"""Whose weights a fine-tune of a run begins with, who sampled, and what it is held against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import tiny

from selfrefine.config import LoraConfig, ObjectiveConfig, TrainConfig
from selfrefine.engines.scripted import Scripted
from selfrefine.layers import resolve
from selfrefine.records import Lesson, Message, Sample, Task
from selfrefine.stages.finetune import policies_of
from selfrefine.stages.progress import Silent
from selfrefine.stages.session import RunSession
from selfrefine.steps.finetune import Policies, finetune

FIRST, ACCEPTED, UNDECIDED = Path("first"), Path("accepted"), Path("undecided")
ROLES: tuple[Literal["rejected", "chosen"], ...] = ("rejected", "chosen")


@pytest.mark.parametrize(
    ("adapter", "accepted", "start", "reference", "expected"),
    [
        # (start, sampler, reference). The model alone, before and after a round was accepted.
        (None, None, "base", "round-0", (None, None, None)),
        (None, ACCEPTED, "base", "round-0", (None, ACCEPTED, None)),
        (None, ACCEPTED, "adapter", "round-0", (ACCEPTED, ACCEPTED, None)),
        (None, ACCEPTED, "adapter", "accepted", (ACCEPTED, ACCEPTED, ACCEPTED)),
        # A run that starts from an adapter: the bare base is nobody's policy here.
        ("first", None, "adapter", "round-0", (FIRST, FIRST, FIRST)),
        ("first", ACCEPTED, "base", "round-0", (FIRST, ACCEPTED, FIRST)),
        ("first", ACCEPTED, "adapter", "round-0", (ACCEPTED, ACCEPTED, FIRST)),
        ("first", ACCEPTED, "adapter", "accepted", (ACCEPTED, ACCEPTED, ACCEPTED)),
        ("first", None, "base", "accepted", (FIRST, FIRST, FIRST)),
        # SPIN: away from what sampled, which an undecided round may have moved beyond the accepted policy.
        (None, ACCEPTED, "adapter", "sampler", (UNDECIDED, UNDECIDED, UNDECIDED)),
    ],
)
def test_policies_of_a_round(
    adapter: str | None, accepted: Path | None, start: str, reference: str, expected: tuple[Path | None, ...]
) -> None:
    table = {"train.start": start, "objective.reference": reference, "objective.name": "dpo"}
    config = resolve([("file", table | ({"adapter": adapter} if adapter else {}))]).config
    current = UNDECIDED if reference == "sampler" else accepted
    run: Any = SimpleNamespace(accepted_adapter=accepted, current_adapter=current)
    found = policies_of(RunSession(config, Silent(), Scripted, run=run))
    assert (found.start, found.sampler, found.reference) == expected


@pytest.mark.parametrize(
    ("own", "asked"),
    [
        (ObjectiveConfig(name="sft"), []),
        (ObjectiveConfig(name="grpo"), ["sampler"]),
        (ObjectiveConfig(name="rloo", settings={"rloo": {"kl": 0.1}}), ["sampler", "reference"]),
        (ObjectiveConfig(name="kto"), ["reference"]),
    ],
)
def test_old_logprobs_are_asked_of_the_sampler_and_others_of_the_reference(
    own: ObjectiveConfig, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of nobody where the objective does not read them: each is a pass over all rows."""
    engine = tiny.engine()
    seen: list[str] = []

    @contextmanager
    def as_policy(wrapped: Any, folder: Path | None) -> Iterator[None]:
        seen.append(str(folder))
        yield

    monkeypatch.setattr(engine.trainer(), "as_policy", as_policy)
    task = Task(id="a", prompt=(Message(role="user", content="?"),))
    rows = [
        Sample(id=f"a.{i}", task=task, text=str(i), reward=float(i), lesson=Lesson(role=role))
        for i, role in enumerate(ROLES)
    ]
    policies = Policies(sampler=Path("sampler"), reference=Path("reference"))
    config = TrainConfig(lora=LoraConfig(r=2))
    finetune(rows, engine.trainer(), config, own, 1, lambda trained, lines, save: None, policies=policies)
    assert seen == asked
