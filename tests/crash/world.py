"""A small run and what surrounds it: model, tasks, reward and configuration, made once; folders to run it in.

One layer, 303 tokens, two rounds of 4 tasks x 2 samples with a critique pass, two commit units in generate
and critique, two training checkpoints a round: every kind of failpoint, in half a second.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any, NamedTuple

import tiny
from forks import Forks, Job
from test_failpoints import tree

SETTINGS: dict[str, dict[str, Any]] = {
    "": {"seed": 5},
    "tasks": {"train": 8, "gate": 4, "test": 4},
    # Whatever is readable ends an answer, so that noise is not all cut off: those rows are never learnt from.
    "generate": {"n": 2, "max_new_tokens": 3, "stop": [*"abcdefghijklmnopqrstuvwxyz0123456789 "]},
    "select": {"strategy": "all"},
    "evaluate": {"max_new_tokens": 2},
    "critique": {"passes": 1, "max_new_tokens": 2},
    "train": {
        "steps": 3,
        "batch_size": 2,
        "checkpoint_steps": 1,
        "lr": 0.02,
        "start": "adapter",
        "replay": 0.3,
    },
    "train.lora": {"r": 2, "targets": ["v_proj"]},
    "cycle": {"rounds": 2, "prompts_per_round": 4},
    # Off: both rounds are kept whatever noise is worth, so the adapter link is made and then swapped.
    "gate": {"mode": "off"},
    "reflect": {"plan": "off"},
}
NOT_COMPARED = ("events.jsonl", ".lock")
"""Clock times, and who holds the lock."""


class Point(NamedTuple):
    """A failpoint of the uninterrupted run."""

    number: int
    name: str
    stage: str
    """"generate 1", "final", …; "create" is what comes before the first."""


@dataclasses.dataclass
class Case:
    """A folder of its own in which commands are given; `runs/r` in it is the run."""

    world: World
    path: Path

    def cycle(self, *flags: str, **fate: Any) -> Job:
        """The same command in every case, so the manifests are equal too. `fate`: see Job."""
        return self.job("cycle", "--run", "r", "--config", str(self.world.config), *flags, **fate)

    def job(self, *argv: str, **fate: Any) -> Job:
        return Job(argv, str(self.path), **fate)

    @property
    def run(self) -> Path:
        return self.path / "runs" / "r"

    @property
    def said(self) -> str:
        """What the commands printed, stdout and stderr."""
        return Path(f"{self.path}.out").read_text(errors="replace")

    def tree(self, *without: str) -> dict[str, object]:
        """Every byte of the runs folder, hidden leftovers included; `without`: beginnings of names."""
        found = tree(self.path / "runs").items()
        return {
            name: value
            for name, value in found
            if not name.endswith(NOT_COMPARED) and not name.removeprefix("r/").startswith(without or "\0")
        }

    def events(self, kind: str) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (self.run / "events.jsonl").read_text().splitlines()]
        return [row for row in rows if row["kind"] == kind]

    def remove(self) -> None:
        shutil.rmtree(self.path)


class World:
    """The model's folder, the tasks and the configuration; `whole` is the run nobody interrupted."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self.folder, self.forks = folder, forks
        self._before: dict[str, Case] = {}
        tiny.save(folder / "model", num_hidden_layers=1)
        # The shipped prompts are hundreds of tokens here, which is most of a run's arithmetic and no part of
        # what is tested.
        (folder / "critique.md").write_text("{{ task }} {{ answer }}?")
        (folder / "revise.md").write_text("{{ answer }} {{ critique }}!")
        shutil.copy(Path(__file__).parent / "letters.py", folder)
        questions = [{"id": f"t{i}", "prompt": f"what is {i} + {7 * i % 11}?"} for i in range(20)]
        (folder / "tasks.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
        self.config = self.configured("config")
        self.whole = self.case("whole")
        assert self.run(self.whole.cycle(log=str(folder / "log"))) == [0], self.whole.said
        self.points = self.numbered(folder / "log")

    def configured(self, name: str, **changes: Any) -> Path:
        """A TOML file; `gate__mode="strict"` changes a setting."""
        tables = {table: dict(settings) for table, settings in SETTINGS.items()}
        tables[""] |= {"model": str(self.folder / "model")}
        tables["tasks"] |= {"source": str(self.folder / "tasks.jsonl")}
        tables["critique"] |= {
            f"{kind}_prompt": str(self.folder / f"{kind}.md") for kind in ("critique", "revise")
        }
        tables["reward"] = {"use": [f"{self.folder / 'letters.py'}:share"]}
        for key, value in changes.items():
            table, _, setting = key.rpartition("__")
            tables[table.replace("__", ".")][setting] = value
        path = self.folder / f"{name}.toml"
        lines = []
        for table, settings in tables.items():
            lines += [f"[{table}]"] if table else []
            lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        path.write_text("\n".join(lines) + "\n")
        return path

    def before(self, stage: str) -> Case:
        """A run that was killed at the door of a stage."""
        if stage not in self._before:
            case = self._before[stage] = self.case(f"before {stage}")
            assert self.run(case.cycle(until=stage)) == [-signal.SIGKILL], case.said
        return self._before[stage]

    def case(self, name: str, copy: Case | None = None) -> Case:
        """A new folder; `copy`: with the runs of another case in it."""
        case = Case(self, self.folder / "cases" / name)
        if copy is None:
            case.path.mkdir(parents=True)
        else:
            shutil.copytree(copy.path, case.path, symlinks=True)
        return case

    def run(self, *jobs: Job) -> list[int]:
        """The jobs one after the other; their exit codes, or minus the signal that ended them."""
        return self.forks.run(jobs)[0]

    def at(self, stage: str, name: str, nth: int = 0) -> int:
        """The number of the nth failpoint `name` in a stage."""
        return [point.number for point in self.points if point[1:] == (name, stage)][nth]

    @staticmethod
    def numbered(log: Path) -> list[Point]:
        """The failpoints that a child's log tells of."""
        points, stage = [], "create"
        for line in log.read_text().splitlines():
            first, _, rest = line.partition(" ")
            if first.isdecimal():
                points.append(Point(int(first), rest, stage))
            else:
                stage = line
        return points
