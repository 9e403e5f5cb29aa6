"""One task through all rounds of a run: every answer to it, in the order in which they were made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import msgspec
from msgspec import Struct

from selfrefine import records
from selfrefine.errors import DataError
from selfrefine.records import Sample, Task
from selfrefine.runfolder.jsonl import lines
from selfrefine.runfolder.order import MORE_ANSWERS, SAME_ANSWERS
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import Run

Whose = Literal["start", "kept", "undecided", "rolled back", "accepted", "sampled"]


class Answered(Struct, frozen=True, kw_only=True):
    """An answer in its place."""

    place: str
    """`round-003`, or `final` (`final-after-003` for an earlier end)."""
    round: int | None
    stage: str
    """The file that it stands in: reward, gate, test, …"""
    policy: Whose
    """Whose answer: of the starting policy, of a round's candidate and what was decided on it, of the policy
    accepted at the end; sampled: to learn from."""
    learnt: bool
    """Selected to be learnt from in its own round."""
    sample: Sample


def find_tasks(run: Run, wanted: str) -> list[tuple[str, Task]]:
    """The tasks whose id is `wanted`, or else begins so, each with its split. Raises: DataError."""
    found = []
    for split in run.manifest.tasks:
        path = run.path / "tasks" / f"{split}.jsonl"
        for line in _holding(path, b'"id":"' + _inner(wanted)):
            task = records.decode_task(line, str(path))
            if task.id == wanted:
                return [(split, task)]
            if task.id.startswith(wanted):
                found.append((split, task))
    return found + _written(run, wanted)


def _written(run: Run, wanted: str) -> list[tuple[str, Task]]:
    """Those that the policy wrote and the run answered: they stand in no split, and are trained on."""
    tasks: dict[str, Task] = {}
    for folder in [*run.rounds()[1:], run.round(run.next_round())]:
        if folder.has("proposed") and folder.has("generate"):
            for line in _holding(folder.file("generate"), b'"task":{"id":"' + _inner(wanted)):
                task = records.decode_sample(line, str(folder.file("generate"))).task
                if "proposed" in task.meta and task.id.startswith(wanted):
                    tasks[task.id] = task
    return [("train", task) for task in tasks.values()]


HELD_OUT = ("gate", "test", "revised")


def history(run: Run, split: str, task: Task) -> list[Answered]:
    """Its answers, oldest first. Only lines that hold the task's id are decoded. Raises: DataError."""
    found: list[Answered] = []
    folders = [*run.rounds(), run.round(run.next_round())]
    for folder in folders:
        if split == "train":
            found += _sampled(folder, task)
        else:
            found += _measured(folder, task, folder.path.name, _decided(folder))
    for path in [*sorted(run.path.glob("final-after-*")), run.final.path]:
        if split != "train" and path.is_dir():
            found += _measured(RoundDir(path), task, path.name, "accepted")
    return found


def _sampled(folder: RoundDir, task: Task) -> Iterator[Answered]:
    own = next((name for name in SAME_ANSWERS if folder.has(name)), None)
    learnt = {row.id for row in rows_of(folder.file("selected"), task.id)}
    for stage in (*([own] if own else []), *(name for name in MORE_ANSWERS if folder.has(name))):
        for row in rows_of(folder.file(stage), task.id):
            yield Answered(
                place=folder.path.name,
                round=folder.index,
                stage=stage,
                policy="sampled",
                learnt=row.id in learnt,
                sample=row,
            )


def _measured(
    folder: RoundDir,
    task: Task,
    place: str,
    policy: Whose,
) -> Iterator[Answered]:
    for stage in HELD_OUT:
        for row in rows_of(folder.file(stage), task.id):
            k = folder.index if place.startswith("round-") else None
            yield Answered(place=place, round=k, stage=stage, policy=policy, learnt=False, sample=row)


def _decided(folder: RoundDir) -> Whose:
    if folder.index == 0:
        return "start"
    return cast("Whose", (folder.summary().decision if folder.committed else "") or "sampled")


def rows_of(path: Path, task_id: str) -> list[Sample]:
    """A file's answers to one task. Raises: DataError."""
    found = [records.decode_sample(line, str(path)) for line in _holding(path, _inner(task_id))]
    return [row for row in found if row.task.id == task_id]


def _inner(text: str) -> bytes:
    """How a string stands in a line that we wrote, without its quotes. Raises: DataError: no UTF-8."""
    try:
        return msgspec.json.encode(text)[1:-1]
    except UnicodeEncodeError:
        raise DataError(f"{text[:80]!r} is no UTF-8 text") from None


def _holding(path: Path, needle: bytes) -> Iterator[bytes]:
    """Lines with these bytes in them: decoding a hundred thousand rows for one task would take seconds."""
    if path.is_file():
        with path.open("rb") as stream:
            for _, line in lines((line for line in stream if needle in line), str(path)):
                yield line
