"""A run written by hand: two rounds (kept, rejected), a third in progress, a final measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hostile import HOSTILE

from selfrefine.records import Critique, Message, Reward, Sample, Task, encode
from selfrefine.runfolder.part import PartFile
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import Cost, FinalSummary, GateDecision, RoundSummary, RunManifest
from selfrefine.stats import Interval

Q = {"a": "What is 1 + 2?", "b": "What is 5 - 3?", "c": "What is 2 + 2?", "d": "What is 9 - 1?"}


def task(id: str, **more: Any) -> Task:
    op = "add" if "+" in Q[id] else "sub"
    fields: dict[str, Any] = {
        "tags": {"op": op, "digits": "1", "difficulty": "num_digits=2"},
        "references": ("3",),
    }
    return Task(id=id, prompt=(Message(role="user", content=Q[id]),), **(fields | more))


SPLITS = {"train": [task("a"), task("b")], "gate": [task("c")], "test": [task("d")]}


def manifest(name: str, **more: Any) -> RunManifest:
    fields: dict[str, Any] = {
        "name": name,
        "argv": ("selfrefine", "cycle"),
        "config": {
            "evaluate": {"measure": ["exact"]},
            "reward": {"use": ["exact"]},
            "train": {"lr": 0.001},
            "cycle": {"rounds": 3},
        },
        "origins": {"train.lr": "flag"},
        "seeds": {"run": 0},
        "git": {},
        "packages": {"python": "3.11.7", "torch": "2.9.0+cpu", "numpy": "2.1.0", "peft": "not installed"},
        "model": {"id": "tiny"},
        "chat_template_sha256": "",
        "prompts": {},
        "tasks": {},
        "device": "cpu",
        "dtype": "float32",
        "threads": 1,
        "token_budget": 64,
    }
    return RunManifest(**(fields | more))


def answer(id: str, k: int = 0, n: int = 0, **more: Any) -> Sample:
    fields: dict[str, Any] = {
        "text": "3",
        "policy": "base",
        "token_ids": (1, 2),
        "prompt_token_ids": (5, 6, 7),
    }
    return Sample(id=f"{id}.r{k}.s{n}", task=task(id), round=k, index=n, **(fields | more))


def scored(id: str, k: int, n: int, value: float | None, **more: Any) -> Sample:
    error = "no number" if value is None else None
    reward = Reward(name="exact", value=value, error=error)
    return answer(id, k, n, rewards=(reward,), reward=value, **more)


def stage(folder: RoundDir, name: str, *rows: Sample) -> None:
    folder.stage(name, [rows], lambda unit: ([encode(row) for row in unit], b"null"))


def decision(outcome: Any) -> GateDecision:
    return GateDecision(
        outcome=outcome,
        accepted=outcome == "accept",
        before=0.0,
        after=1.0,
        n=1,
        reason=f"{outcome}: said why",
    )


def gate(folder: RoundDir, value: float) -> Interval:
    stage(folder, "gate", scored("c", 0, 0, value))
    return Interval(mean=value, lo=0.0, hi=1.0, n=1)


def make(folder: Path, name: str = "r", *, open_round: bool = True, **asked: Any) -> Run:
    """runs/NAME below `folder`."""
    prompts = asked.pop("prompts", {"critique.md": "Look at {{ task }}\n"})
    splits = asked.pop("splits", SPLITS)
    run = Run.create(folder / "runs" / name, manifest(name, **asked), splits, prompts)
    run.events.append("cycle", continued=False, argv=["selfrefine"])
    first = run.round(0)
    measures = {"gate": gate(first, 0.0)}
    stage(first, "test", scored("d", 0, 0, 0.0))
    measures["test"] = Interval(mean=0.0, lo=0.0, hi=1.0, n=1)
    first.commit(RoundSummary(index=0, policy_before="base", policy_after="base", measures=measures))
    _round(run, 1, "accept", 1)
    _round(run, 2, "reject", 1)
    stage(run.final, "test", scored("d", 0, 0, 1.0))
    end = FinalSummary(after_round=2, accepted_round=1, policy="base", test=measures["test"], test_reads=2)
    run.final_file.write_text(
        json.dumps(
            {
                "after_round": 2,
                "accepted_round": 1,
                "policy": end.policy,
                "test_reads": 2,
                "test": {"mean": 1.0, "lo": None, "hi": None, "n": 1},
            }
        )
    )
    if open_round:
        part = PartFile.open(_made(run.round(3)).file("generate"))
        part.append([encode(answer("a", 3))])
        part.close()
        with part.path.open("ab") as stream:
            stream.write(b'{"half a row')
    return run


def _made(folder: RoundDir) -> RoundDir:
    folder.path.mkdir()
    return folder


def _round(run: Run, k: int, outcome: str, accepted: int) -> None:
    folder = run.round(k)
    run.events.append("stage-begin", round=k, stage="generate")
    votes = (Critique(verdict="ok"), Critique(verdict="revise", token_ids=(1, 2, 3)))
    critique = Critique(text="Looks wrong", verdict="revise", score=0.25, votes=votes)
    rows = [
        scored("a", k, 0, 1.0),
        scored("a", k, 1, None, text="", finish_reason="length"),
        scored("b", k, 0, 0.1, text="sorry, 7", critiques=(critique,)),
        scored("b", k, 1, 0.0, text=HOSTILE["colours and cursor"]),
    ]
    stage(folder, "generate", *(answer(row.task.id, k, row.index, text=row.text) for row in rows))
    stage(folder, "reward", *rows)
    stage(folder, "selected", rows[0])
    step = {
        "step": 1,
        "loss": 0.5,
        "lr": 0.1,
        "grad_norm": 2.0,
        "tokens": 9,
        "items": 1,
        "metrics": {"kl": 0.25},
    }
    folder.stage("train", [step], lambda unit: ([json.dumps(unit).encode()], b"null"))
    folder.put_directory("adapter", lambda place: (place / "adapter_model.safetensors").write_bytes(b"w" * k))
    found = gate(folder, 1.0 if outcome == "accept" else 0.0)
    run.events.append("stage-end", round=k, stage="generate", seconds=1.5)
    folder.commit(
        RoundSummary(
            index=k,
            policy_before="base",
            policy_after="base",
            cost=Cost(tokens=100 * k),
            measures={"gate": found},
            gate=decision(outcome),
            accepted_round=accepted,
        )
    )
