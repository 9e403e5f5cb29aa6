"""Runs that plan their rounds, with a script as their engine: nothing is learnt, `finetune` makes an empty
adapter. Subtractions are never right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import selfrefine

from selfrefine.cli import common
from selfrefine.engines.scripted import Scripted
from selfrefine.records import Sample
from selfrefine.reflection import rules
from selfrefine.reflection.findings import Action, Plan, Target
from selfrefine.runfolder.run import Run
from selfrefine.stages import cycle as loop
from selfrefine.stages.in_run import formatted
from selfrefine.stages.progress import Silent
from selfrefine.stages.session import RunSession

SETTINGS = [
    "tasks.source=tasks.jsonl",
    "tasks.gate=40",
    "tasks.test=8",
    "cycle.prompts_per_round=24",
    "cycle.rounds=2",
    "generate.n=2",
    "generate.max_new_tokens=8",
    'evaluate.measure=["numeric"]',
    "gate.mode=off",
    "guards.probe=false",
    "select.strategy=all",
    "reflect.causes=false",
]
SCRIPT = [{"match": "-", "answers": ["8"]}, {"match": "", "answers": ["7", "7", "7", "8"]}]
TARGET = Target(figure="gate.mean", split="gate", direction="up", before=0.5)
BRIEF = rules.REPAIRS["cut off"]


class Says(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


class Unlearning(Scripted):
    """Takes any adapter and stays what it is. With a hint in the system message it is brief and right."""

    def use_adapter(self, folder: Path | None) -> None:
        pass

    def _answers(self, prompt: Sequence[int]) -> list[tuple[int, ...]]:
        if BRIEF in self.decode(prompt):
            return [self.encode_answer("7")]
        return super()._answers(prompt)


def make_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": f"{'m' if i % 2 else 'p'}{i:03}", "question": f"{i} {'-' if i % 2 else '+'} 1", "answer": "7"}
        for i in range(148)
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script(tmp_path, SCRIPT)
    monkeypatch.setattr(loop, "ROUND", tuple(_trains if s is loop.finetune_round else s for s in loop.ROUND))
    return tmp_path


def script(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "script.jsonl").write_text("".join(json.dumps(rule) + "\n" for rule in rows))


def _trains(session: RunSession, k: int) -> None:
    session.run.round(k).put_directory("adapter", lambda place: (place / "weights").write_text("none"))


def work(folder: Path, name: str, *more: str) -> RunSession:
    sets = [*SETTINGS, *more]
    words = [word for text in sets for word in ("--set", text)]
    if not (folder / "runs" / name).exists():
        made = selfrefine("runs", "new", name, "--model", "scripted:script.jsonl", *words, cwd=folder)
        assert made.code == 0, made.err
    config = common.settings(None, sets, {"model": "scripted:script.jsonl"}).config
    engine = Unlearning.from_file(folder / "script.jsonl")
    return RunSession(config, Says(), lambda: engine, run=Run.open(folder / "runs" / name))


def started(folder: Path, name: str, *more: str) -> RunSession:
    made = work(folder, name, *more)
    loop.baseline(made)
    return made


def rows(made: RunSession, name: str, k: int = 1) -> list[Sample]:
    return list(made.run.round(k).samples(name))


def drawn(made: RunSession, k: int = 1) -> list[str]:
    return [row.task.id for row in rows(made, "generate", k) if row.index == 0]


def minus(ids: list[str]) -> int:
    return sum(one.startswith("m") for one in ids)


def file(made: RunSession, name: str, k: int = 1) -> bytes:
    return (made.run.round(k).path / name).read_bytes()


def write(made: RunSession, *actions: Action, mode: Any = "auto", k: int = 1) -> None:
    """A round's reflection as if it had come to this."""
    place = made.run.round(k)
    place.put("plan.json", formatted(Plan(round=k, mode=mode, actions=actions)))
    place.put("reflect.json", b"{}")
