"""What happened in a run, and when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from selfrefine.errors import DataError
from selfrefine.runfolder.jsonl import lines, torn_end


class Events:
    """`events.jsonl`: what happened, and the only place for clock times. Nothing is recovered from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mended = False

    def append(self, kind: str, **fields: Any) -> None:
        """Add a line. A full disk loses it silently: the artifact being written says so, and matters more."""
        event = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind, **fields}
        line = msgspec.json.encode(event) + b"\n"
        with suppress(OSError), self.path.open("ab", buffering=0) as stream:
            if not self._mended:
                whole = self.path.read_bytes()
                stream.truncate(whole.rfind(b"\n") + 1)
                self._mended = True
            stream.write(line)

    def tail(self, size: int = 16_384) -> list[dict[str, Any]]:
        """The last events, as many as stand whole in `size` bytes: a long run is not read for its end."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as stream:
            length = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, length - size))
            rows = stream.read().split(b"\n")[1 if length > size else 0 :]
        return [event for row in filter(None, rows) if (event := _event(row)) is not None]

    def cut(self) -> bool:
        """Whether the file begins or ends with what is no whole event; a look at both ends only."""
        if not self.path.is_file() or not self.path.stat().st_size:
            return False
        with self.path.open("rb") as stream:
            return _event(stream.readline()) is None or torn_end(self.path)

    def broken(self) -> str | None:
        """A sentence for the first line that is no event, or for a last one without its end."""
        if not self.path.is_file():
            return None
        where = self.path.name
        try:
            with self.path.open("rb") as stream:
                for where, line in lines(stream, self.path.name):
                    if _event(line) is None:
                        return f"{where} is damaged: not a whole event"
        except DataError as error:
            return str(error)
        return f"{where} is damaged: its line is cut off" if self.cut() else None

    def read(self) -> Iterator[dict[str, Any]]:
        """The events that can be read; a torn line is left out."""
        if self.path.is_file():
            with self.path.open("rb") as stream:
                for _, line in lines(stream, self.path.name):
                    if (event := _event(line)) is not None:
                        yield event


def _event(line: bytes) -> dict[str, Any] | None:
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(line, type=dict[str, Any])
    return None
