"""A run folder of three tasks, and what stands in it."""

from __future__ import annotations

from typing import Any

from selfrefine.records import Message, Sample, Task, encode
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import RoundSummary, RunManifest


def task(id: str, question: str) -> Task:
    return Task(id=id, prompt=(Message(role="user", content=question),))


SPLITS = {"train": [task("a", "1 + 1?")], "gate": [task("b", "1 + 2?")], "test": [task("c", "1 + 3?")]}


def manifest(**fields: Any) -> RunManifest:
    base: dict[str, Any] = {
        "name": "demo",
        "argv": ("selfrefine", "cycle"),
        "config": {"sampling": {"temperature": 1.0}, "cycle": {"rounds": 3, "until": None}},
        "origins": {"sampling.temperature": "default"},
        "seeds": {"run": 0},
        "git": {"commit": "abc", "dirty": False},
        "packages": {"torch": "2.13.0"},
        "model": {"id": "tiny", "sha256": "00"},
        "chat_template_sha256": "11",
        "prompts": {},
        "tasks": {},
        "device": "cpu",
        "dtype": "float32",
        "threads": 2,
        "token_budget": 4096,
    }
    return RunManifest(**(base | fields))


def row(policy: str, round: int = 0, id: str = "a.r0.s0", **fields: Any) -> bytes:
    return encode(Sample(id=id, task=SPLITS["train"][0], text="2", round=round, policy=policy, **fields))


def summary(index: int, **fields: Any) -> RoundSummary:
    return RoundSummary(index=index, **({"policy_before": "base", "policy_after": "base"} | fields))


def begin(run: Run) -> None:
    """As every command does before it writes to a run: without an event, the run's history would be lost."""
    if not run.events.path.exists():
        run.events.append("stage-command", stage="gate")


def commit_round(
    run: Run, index: int, accepted: int = 0, policy: str = "base", rows: int = 1
) -> RoundSummary:
    begin(run)
    folder = run.round(index)
    folder.stage("generate", range(rows), lambda n: ([row(policy, index, f"a.r{index}.s{n}")], b"null"))
    if index:
        folder.put_directory("adapter", lambda d: (d / "adapter_model.safetensors").write_bytes(b"w"))
    return folder.commit(summary(index, accepted_round=accepted))
