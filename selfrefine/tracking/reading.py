"""From a run's folder to its points, and to what was asked of it. Reads only, takes no lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from selfrefine.errors import DataError
from selfrefine.reflection.findings import PLAN_FILE, WEAKNESSES_FILE
from selfrefine.reflection.overview import test_gain
from selfrefine.runfolder.jsonl import lines, read_json
from selfrefine.runfolder.order import titled
from selfrefine.runfolder.round import ROUND_FILE, TRAINING_LOG, RoundDir
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import Cost, FinalSummary
from selfrefine.tracking.points import (
    Key,
    Point,
    of_end,
    of_event,
    of_round,
    of_stage,
    of_training,
)

NO_SUMMARY = (ROUND_FILE, WEAKNESSES_FILE, PLAN_FILE)
"""round.json has its own points; the others hold settings and tables, whose curves would say nothing."""


def points(run: Run) -> list[Point]:
    """All that there are so far, round by round; each key once. Raises: RunFolderError, DataError."""
    events = list(run.events.read())
    times = _Times(events)
    found: dict[Key, Point] = {}
    spent, steps = Cost(), 0
    for k in range(run.next_round() + 1):
        folder = run.round(k)
        for file in sorted(folder.path.glob("*.json")):
            if file.name not in NO_SUMMARY and (told := read_json(file, dict[str, Any])):
                _keep(found, of_stage(file.stem, told, k, times.of_stage(k, file)))
        rows = list(_training(folder))
        _keep(found, of_training(rows, steps, times.of_stage(k, folder.file(TRAINING_LOG))))
        steps += len(rows)
        if folder.committed:
            summary = folder.summary()
            spent += summary.cost
            _keep(found, of_round(summary, spent, times.of_round(k, folder)))
    _keep(found, _told(events))
    for place in [*sorted(run.path.glob("final-after-*")), run.final.path]:
        final = read_json(place / "summary.json", FinalSummary)
        if final is not None:
            gain = test_gain(run, RoundDir(place))
            _keep(found, of_end(final, gain, times.of_stage("final", place / "summary.json")))
    return list(found.values())


def about(run: Run) -> dict[str, str | int | float | bool]:
    """What was asked: settings by their dotted keys, the model, versions, hashes; null ones are left out."""
    own = run.manifest
    told: dict[str, Any] = {
        **own.config,
        "base": own.model,
        "packages": own.packages,
        "tasks_sha256": own.tasks,
        "device": own.device,
        "dtype": own.dtype,
    }
    return dict(_settings(told))


class _Times:
    """When things were done, by the events. What no event tells of (a power cut can lose them) has its
    file's time."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self._stages: dict[tuple[Any, Any], float] = {}
        for event in events:
            if (at := when(event)) is None:
                continue
            if event.get("kind") == "stage-end":
                self._stages[event.get("round"), event.get("stage")] = at
                if event.get("round") == 0:
                    self._stages[0, "round"] = at  # round 0 has no event of its own; its last stage ends it
            elif event.get("kind") == "gate":
                self._stages[event.get("round"), "round"] = at

    def of_stage(self, place: int | str, file: Path) -> float:
        stage = "test" if place == "final" else titled(file.stem)
        return self._stages.get((place, stage)) or _modified(file)

    def of_round(self, k: int, folder: RoundDir) -> float:
        return self._stages.get((k, "round")) or _modified(folder.path / ROUND_FILE)


def when(event: Mapping[str, Any]) -> float | None:
    """An event's time in seconds since 1970; None where it has none that can be read."""
    try:
        return datetime.fromisoformat(str(event.get("time"))).timestamp()
    except ValueError:
        return None


def _told(events: list[dict[str, Any]]) -> Iterator[Point]:
    """Of an event that names no round, the round is that of the event before it."""
    k = 0
    for event in events:
        if isinstance(event.get("round"), int):
            k = event["round"]
        if (at := when(event)) is not None:
            yield from of_event(event, k, at)


def _training(folder: RoundDir) -> Iterator[dict[str, Any]]:
    path = folder.file(TRAINING_LOG)
    if not path.is_file():
        return
    with path.open("rb") as stream:
        for where, line in lines(stream, str(path)):
            try:
                row = msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise DataError(f"{where}: {error}") from None
            if not isinstance(row.get("step"), int):
                raise DataError(f"{where}: not a row of a training log, it has no step")
            yield row


def _settings(told: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    for key, value in told.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float | bool):
            yield prefix + key, value
        elif value is not None:
            yield prefix + key, msgspec.json.encode(value).decode()


def _keep(found: dict[Key, Point], more: Iterator[Point]) -> None:
    for point in more:
        found.setdefault(point.key, point)


def _modified(file: Path) -> float:
    return file.stat().st_mtime if file.exists() else 0.0
