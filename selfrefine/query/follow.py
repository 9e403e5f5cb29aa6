"""Following a run that another process works on: what it says of itself, as plain lines.

events.jsonl tells what began and ended, the index of a stage in progress how far it is, round.json what a
round came to. Only the run's lock says whether somebody works on it: it dies with its process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from selfrefine.query.rows import progress
from selfrefine.runfolder.audit import ENDS
from selfrefine.runfolder.run import Run
from selfrefine.words import count

POLL_S = 0.5
FIRST_UPDATE_S, UPDATE_EVERY_S = 10.0, 30.0
"""When a stage in progress is told of, as the program's own lines in a log file do."""


class EventLines:
    """The events of a file that is written to, each once, when its line is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = self._inode = 0

    def new(self) -> list[dict[str, Any]]:
        """Those that came since the last call; half a line at the end waits for its rest."""
        try:
            with self._path.open("rb") as stream:
                stat = self._path.stat()
                if stat.st_ino != self._inode:  # a file that a command began anew
                    self._inode, self._at = stat.st_ino, 0
                # A command that goes on cuts off half a line of one that died: that is behind us, not read.
                stream.seek(min(self._at, stat.st_size))
                data = stream.read()
                start = stream.tell() - len(data)
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._at = start + len(whole)
        found = []
        for line in whole.splitlines():
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                found.append(msgspec.json.decode(line, type=dict[str, Any]))
        return found


class Follower:
    """One run, looked at again and again. `clock` counts seconds."""

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic) -> None:
        self.run, self._clock = run, clock
        self._events = EventLines(run.events.path)
        self._stages: dict[Path, tuple[float, int, float]] = {}
        """A stage in progress to when it was first seen, its rows then, and when it is told of next."""
        self._known = run.next_round()
        self.last: dict[str, Any] | None = None
        """The last event that begins or ends a process's work."""

    def earlier(self, n: int) -> list[dict[str, Any]]:
        """The last `n` events of before; they are not told again."""
        found = self._events.new()
        self._remember(found)
        return found[-n:] if n else []

    def look(self, as_json: bool = False) -> Iterator[str | dict[str, Any]]:
        """Lines for what has changed; as JSON the events only, as they are."""
        found = self._events.new()
        self._remember(found)
        if as_json:
            yield from found
            return
        yield from (sentence(event) for event in found)
        yield from self._committed()
        yield from self._progress()

    def ended(self) -> bool:
        """Nobody works on the run. Asked before a last look: what was written meanwhile is still told."""
        return not self.run.locked()

    def _remember(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if event.get("kind") in ENDS:
                self.last = event

    def _committed(self) -> Iterator[str]:
        while self._known < self.run.next_round():
            summary = self.run.summary(self._known)
            figures = ", ".join(
                f"{split} {measured.mean:.3f}"
                for split, measured in summary.measures.items()
                if measured.mean is not None
            )
            cost = count(summary.cost.tokens, "token")
            yield f"         round {self._known} committed{': ' if figures else ''}{figures}, {cost} sampled"
            self._known += 1

    def _progress(self) -> Iterator[str]:
        now, there = self._clock(), {}
        for folder in (self.run.round(self.run.next_round()), self.run.final):
            for part in folder.in_progress():
                final = part.with_name(part.name.removesuffix(".part"))
                with suppress(FileNotFoundError):  # finished in between
                    _, rows = progress(final)
                    first, had, due = self._stages.get(final, (now, rows, now + FIRST_UPDATE_S))
                    if now >= due:
                        due = now + UPDATE_EVERY_S
                        rate = (rows - had) / (now - first) if now > first else 0.0
                        per = f", {rate:,.3g} rows/s" if rate else ""
                        where = f"round {folder.index}" if folder is not self.run.final else "final"
                        yield f"         {where} {final.stem}: {count(rows, 'row')} so far{per}"
                    there[final] = (first, had, due)
        self._stages = there

    def exit(self) -> tuple[int, str]:
        """The exit code of the process that worked on the run, and how it ended in a sentence.

        A process that was killed has written nothing: 137 as a shell says of one that SIGKILL ended.
        """
        last = self.last or {}
        kind = last.get("kind")
        if kind == "end":
            return 0, f"the run has ended: {_first_line(last.get('why'))}"
        if kind == "failed":
            code = last.get("code")
            return code if isinstance(
                code, int
            ) else 1, f"the run failed (exit {code}): {_first_line(last.get('why'))}"
        if kind == "stopped":
            signal = last.get("signal")
            code = 128 + signal if isinstance(signal, int) else 130
            return code, f"the run was stopped; `selfrefine cycle --run {self.run.called}` continues it"
        if kind == "cycle":
            way = f"`selfrefine cycle --run {self.run.called}` continues it"
            return 137, f"the run's process is gone without a word (killed, or a power cut); {way}"
        if kind == "stage-command":
            return 0, f"nobody works on the run; its last command was {last.get('stage')}"
        return 0, "nobody works on the run, and nothing has happened in it yet"


def sentence(event: Mapping[str, Any]) -> str:
    """An event in one line: its time of day in UTC, where, what."""
    time_ = str(event.get("time", ""))[11:19] or "        "
    place = event.get("round")
    where = "" if place is None else f"round {place} " if isinstance(place, int) else f"{place} "
    stage = event.get("stage")
    kind = str(event.get("kind"))
    return f"{time_} {where}{_said(kind, event, '' if stage is None else f'{stage}: ')}"


def _said(kind: str, event: Mapping[str, Any], stage: str) -> str:
    match kind:
        case "stage-begin":
            return f"{stage}begins"
        case "stage-end":
            seconds = event.get("seconds")
            return f"{stage}done" + (f" in {seconds:,.1f} s" if isinstance(seconds, int | float) else "")
        case "cycle":
            return "cycle continues" if event.get("continued") else "cycle begins"
        case "stage-command":
            return f"by hand: {event.get('stage')}"
        case "gate" | "warning":
            return f"{kind}: {event.get('reason')}"
        case "end" | "failed":
            code = "" if kind == "end" else f" (exit {event.get('code')})"
            return f"{kind}{code}: {_first_line(event.get('why'))}"
        case "stopped":
            return f"stopped by signal {event.get('signal')}"
    rest = {key: value for key, value in event.items() if key not in ("time", "kind", "round", "stage")}
    told = ", ".join(
        f"{key} {value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
        for key, value in rest.items()
    )
    return f"{stage}{kind}{': ' if told else ''}{told}"


def _first_line(why: object) -> str:
    return str(why).partition("\n")[0]
