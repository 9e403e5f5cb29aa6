"""Two runs side by side: what was asked, where, on which data, with which prompts, and what came out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from selfrefine.errors import ConfigError, DataError, RunFolderError
from selfrefine.gating.versus import Versuses, versus
from selfrefine.layers import flatten
from selfrefine.records import Task, decode_task, prompt_key
from selfrefine.runfolder.jsonl import lines
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import Outcome, RoundSummary
from selfrefine.stats import Interval


class Difference(Struct, frozen=True, kw_only=True):
    """A value that differs; null is "not there". The origins say who decided: default, recipe, file, flag."""

    key: str
    a: Any = None
    b: Any = None
    a_origin: str | None = None
    b_origin: str | None = None


class SplitDifference(Struct, frozen=True, kw_only=True):
    """One split: how many tasks each has, and what became of them from A to B, by id."""

    split: str
    a_tasks: int
    b_tasks: int
    only_a: int
    only_b: int
    changed: int
    """Same id, but another prompt, reference or tag."""
    held_out_in_other: int = 0
    """Held-out tasks of A whose prompt B trains on, and the reverse."""
    note: str | None = None


Decided = Outcome | Literal["start"]


class RoundPair(Struct, frozen=True, kw_only=True):
    """A round of both; null where a run has no such round."""

    round: int
    a_gate: Interval | None = None
    a_outcome: Decided | None = None
    b_gate: Interval | None = None
    b_outcome: Decided | None = None


class Diff(Struct, frozen=True, kw_only=True):
    """What `runs diff A B` shows; an empty part says that nothing differs there."""

    a: str
    b: str
    configuration: list[Difference]
    environment: list[Difference]
    data: list[SplitDifference]
    prompts: dict[str, list[str]]
    """Template to the lines of a unified diff."""
    rounds: list[RoundPair]
    """All rounds of both, whether they differ or not."""
    compared: Versuses | None
    """The gains, and B against A on the test tasks that both have; null with a reason in `not_compared`."""
    not_compared: str | None


def differ(a: Run, b: Run) -> Diff:
    """Raises: RunFolderError, DataError: a run that cannot be read."""
    names = (a.name, b.name) if a.name != b.name else (str(a.path), str(b.path))
    compared: Versuses | None = None
    why: str | None = None
    try:
        compared = versus([a, b])
    except (ConfigError, DataError, RunFolderError) as error:
        why = str(error)
    return Diff(
        a=names[0],
        b=names[1],
        configuration=_configuration(a, b),
        environment=_environment(a, b),
        data=_data(a, b),
        prompts=_prompts(a, b, names),
        rounds=_rounds(a, b),
        compared=compared,
        not_compared=why,
    )


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    keys = sorted(a.keys() | b.keys())
    return [Difference(key=key, a=a.get(key), b=b.get(key)) for key in keys if a.get(key) != b.get(key)]


def _configuration(a: Run, b: Run) -> list[Difference]:
    found = _differences(flatten(a.manifest.config), flatten(b.manifest.config))
    origins = a.manifest.origins, b.manifest.origins
    return [
        Difference(
            key=one.key,
            a=one.a,
            b=one.b,
            a_origin=origins[0].get(one.key),
            b_origin=origins[1].get(one.key),
        )
        for one in found
    ]


def _environment(a: Run, b: Run) -> list[Difference]:
    """Everything else of the manifests, but for the names, the command line and what `_data` compares."""
    return _differences(*(dict(_machine(run)) for run in (a, b)))


def _machine(run: Run) -> list[tuple[str, Any]]:
    told = run.manifest
    found: list[tuple[str, Any]] = []
    for table in ("packages", "git", "model", "critic", "code", "seeds"):
        found += [(f"{table}.{key}", value) for key, value in getattr(told, table).items()]
    single = ("device", "dtype", "threads", "token_budget", "chat_template_sha256")
    return found + [(key, getattr(told, key)) for key in single]


def _data(a: Run, b: Run) -> list[SplitDifference]:
    hashes = a.manifest.tasks, b.manifest.tasks
    splits = [
        name for name in dict.fromkeys((*hashes[0], *hashes[1])) if hashes[0].get(name) != hashes[1].get(name)
    ]
    if not splits:
        return []
    tasks = _tasks(a), _tasks(b)
    learnt = [{prompt_key(task.prompt) for task in one.get("train", {}).values()} for one in tasks]
    found = []
    for name in splits:
        ours, theirs = tasks[0].get(name, {}), tasks[1].get(name, {})
        crossed = 0
        if name != "train":
            crossed = sum(prompt_key(task.prompt) in learnt[1] for task in ours.values())
            crossed += sum(prompt_key(task.prompt) in learnt[0] for task in theirs.values())
        found.append(
            SplitDifference(
                split=name,
                a_tasks=len(ours),
                b_tasks=len(theirs),
                only_a=len(ours.keys() - theirs.keys()),
                only_b=len(theirs.keys() - ours.keys()),
                changed=sum(ours[key] != theirs[key] for key in ours.keys() & theirs.keys()),
                held_out_in_other=crossed,
                note=_note(ours, theirs),
            )
        )
    return found


def _note(ours: Mapping[str, Task], theirs: Mapping[str, Task]) -> str | None:
    """Why the hashes differ where no task does."""
    if ours != theirs:
        return None
    return (
        "the same tasks in another order"
        if list(ours) != list(theirs)
        else "the same tasks, written otherwise"
    )


def _tasks(run: Run) -> dict[str, dict[str, Task]]:
    """By split and id, as they are on disk: a changed file is `runs verify`'s to name."""
    found: dict[str, dict[str, Task]] = {}
    for name in run.manifest.tasks:
        path = run.path / "tasks" / f"{name}.jsonl"
        if not path.is_file():
            raise RunFolderError(f"{path} is missing")
        with path.open("rb") as stream:
            rows = [decode_task(line, where) for where, line in lines(stream, str(path))]
        found[name] = {task.id: task for task in rows}
    return found


def _prompts(a: Run, b: Run, names: tuple[str, str]) -> dict[str, list[str]]:
    """Templates that differ, as unified diffs."""
    found = {}
    for name in sorted(a.manifest.prompts.keys() | b.manifest.prompts.keys()):
        if a.manifest.prompts.get(name) == b.manifest.prompts.get(name):
            continue
        texts = [_lines(run, name) for run in (a, b)]
        labels = [f"{called}/prompts/{name}" for called in names]
        found[name] = list(difflib.unified_diff(texts[0], texts[1], labels[0], labels[1], lineterm=""))
    return found


def _lines(run: Run, name: str) -> list[str]:
    path = run.prompts_dir / name
    return path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []


def _rounds(a: Run, b: Run) -> list[RoundPair]:
    sides = [{folder.index: folder.summary() for folder in run.rounds()} for run in (a, b)]
    found = []
    for index in sorted(sides[0].keys() | sides[1].keys()):
        ours, theirs = (_measured(side.get(index)) for side in sides)
        found.append(
            RoundPair(round=index, a_gate=ours[0], a_outcome=ours[1], b_gate=theirs[0], b_outcome=theirs[1])
        )
    return found


def _measured(one: RoundSummary | None) -> tuple[Interval | None, Decided | None]:
    if one is None:
        return None, None
    return one.measures.get("gate"), one.gate.outcome if one.gate else "start"
