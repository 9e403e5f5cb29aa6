"""A run folder written by hand: two rounds with figures that can be worked out, and its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from selfrefine.records import Message, Sample, Task, encode
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import Cost, FinalSummary, GateDecision, Guard, RoundSummary, RunManifest
from selfrefine.stats import Interval

T0 = "2026-01-02T03:04:{:02d}.250+00:00"
SECONDS = 1767323040.25
"""T0 with second 0, by `date -d 2026-01-02T03:04:00.25Z +%s.%N`."""


def make(path: Path, name: str = "demo", seed: int = 3) -> Run:
    manifest = RunManifest(
        name=name, argv=(), origins={}, seeds={"run": seed}, git={}, packages={"torch": "2"},
        config={"seed": seed, "train": {"lr": 0.1, "lora": {"targets": ["a"]}}, "adapter": None},
        model={"id": "tiny"}, chat_template_sha256="", prompts={}, tasks={}, device="cpu", dtype="float32",
        threads=1, token_budget=1,
    )  # fmt: skip
    tasks = [Task(id=f"t{i}", prompt=(Message(role="user", content=f"{i}?"),)) for i in range(8)]
    return Run.create(path / name, manifest, {"train": tasks[:1], "test": tasks[1:]}, {})


def event(run: Run, second: int, kind: str, **fields: Any) -> None:
    with run.events.path.open("a") as stream:
        stream.write(json.dumps({"time": T0.format(second), "kind": kind, **fields}) + "\n")


def interval(mean: float | None, n: int = 4) -> Interval:
    return Interval(mean=mean, lo=None if mean is None else mean - 0.1, hi=None, n=n)


def measured(run: Run, place: Any, right: int) -> None:
    """Of seven tasks so many are right."""
    rows = [
        encode(Sample(id=f"{t.id}.r0.s0", task=t, text="", reward=float(i < right)))
        for i, t in enumerate(run.tasks("test"))
    ]
    place.stage("test", [rows], lambda unit: (unit, b"null"), summarise=lambda _: b'{"truncated":1}')


def start(run: Run) -> None:
    event(run, 0, "cycle", continued=False)
    measured(run, run.round(0), 0)
    event(run, 1, "stage-end", round=0, stage="test", seconds=1.0)
    run.round(0).commit(
        RoundSummary(
            index=0, policy_before="p", policy_after="p", cost=Cost(tokens=10, measured_tokens=10),
            measures={"gate": interval(0.25), "test": interval(0.0, 7)},
        )
    )  # fmt: skip


def one_round(run: Run, k: int, outcome: Any = "accept", steps: int = 2, **fields: Any) -> None:
    folder, second = run.round(k), 10 * k
    folder.stage(
        "generate",
        [0],
        lambda _: ([], b"null"),
        summarise=lambda _: b'{"samples":8,"entropy":null,"truncated":3}',
    )
    event(run, second + 1, "stage-end", round=k, stage="generate", seconds=1.0)
    event(run, second + 1, "alarm", round=k, stage="generate", alarm="truncated", value=0.375, limit=0.3)
    rows = [
        json.dumps({"step": s, "loss": 1 / s, "lr": 0.1, "grad_norm": None, "tokens": 5, "items": 2,
                    "metrics": {"clip/high": 0.5, "entropy": 2.0}}).encode()
        for s in range(1, steps + 1)
    ]  # fmt: skip
    folder.stage("train", [rows], lambda unit: (unit, b"null"), summarise=lambda _: b'{"first_loss":1.0}')
    event(run, second + 2, "stage-end", round=k, stage="finetune", seconds=1.0)
    folder.put_directory("adapter", lambda place: (place / "adapter_model.safetensors").write_bytes(b"w"))
    accepted = outcome == "accept"
    decided = GateDecision(
        outcome=outcome, accepted=accepted, before=0.25, after=0.5, difference=0.25, lo=0.125, n=4,
        reason=fields.pop("reason", f"{outcome}: better"),
    )  # fmt: skip
    folder.commit(
        RoundSummary(
            index=k, policy_before="p", policy_after="q",
            cost=Cost(tokens=20, measured_tokens=5, trained_tokens=7),
            measures={"gate": interval(0.5)}, gate=decided, accepted_round=k if accepted else 0,
            guards=fields.pop("guards", (Guard(name="length", value=12.0), Guard(name="gold", value=None))),
        )
    )  # fmt: skip
    event(run, second + 3, "gate", round=k, outcome=outcome, reason=decided.reason)
    event(run, second + 4, "warning", round=k, reason=f"worn {k}")


def end(run: Run, after: int) -> None:
    measured(run, run.final, 7)
    event(run, 50, "stage-end", round="final", stage="test", seconds=1.0)
    final = FinalSummary(
        after_round=after, accepted_round=after, policy="q", test=interval(1.0, 7), test_reads=2
    )
    run.final_file.write_bytes(msgspec.json.encode(final))
    event(run, 51, "end", why=f"{after} rounds done")


def whole(path: Path, name: str = "demo", **fields: Any) -> Run:
    run = make(path, name)
    start(run)
    one_round(run, 1, **fields)
    one_round(run, 2, "reject", steps=3)
    end(run, 2)
    return run
