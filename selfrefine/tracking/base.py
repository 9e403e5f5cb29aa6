"""What a tracker does, where it writes, and what is said where its package is missing."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from selfrefine.errors import ConfigError, RunFolderError
from selfrefine.runfolder.jsonl import sha256_file, write_errors
from selfrefine.runfolder.run import MANIFEST, Run
from selfrefine.tracking.points import Point

About = Mapping[str, str | int | float | bool]
PROJECT = "selfrefine"
"""Under which trackers with projects or experiments keep runs."""


class Tracker(Protocol):
    """An open tracker. It begins empty: what it had of this run before is gone, so that a replay after a kill
    neither doubles nor loses a point."""

    def log(self, points: Sequence[Point]) -> None:
        """Hand points over; they are on disk when it returns."""

    def close(self) -> None: ...


class TrackerKind(Struct, frozen=True, kw_only=True):
    """A tracker by name."""

    name: str
    about: str
    opens: Callable[[Path, str, About], Tracker]
    """(folder, the run's name, what was asked) → an empty tracker."""
    look: str
    """A command that shows what was written; {dir} is the folder."""


def needed(module: str, extra: str) -> Any:
    """Import a tracker's package. Raises: ConfigError: how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = f"--to {extra} needs the package {module.partition('.')[0]} ({error})"
        raise ConfigError(f"{missing}\ninstall it: pip install 'selfrefine[{extra}]'") from None


@contextmanager
def claimed(place: Path, run: Run) -> Iterator[None]:
    """Be the one that writes this run into `place`. Raises: RunFolderError: another process does, or another
    run of this name is there already, which would be replaced."""
    mark = f"{hashlib.sha256(sha256_file(run.path / MANIFEST).encode()).hexdigest()[:16]}\n"
    with write_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        fd = os.open(place / f".{run.name}.track", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"{place} is followed into by another process: wait for it, or stop it"
            ) from None
        if (before := os.pread(fd, 100, 0).decode(errors="replace")) and before != mark:
            raise RunFolderError(f"{place} holds another run named {run.name}: choose another --dir")
        with write_errors(place):
            os.pwrite(fd, mark.encode(), 0)
        yield
    finally:
        os.close(fd)


def inert(text: str) -> str:
    """A text for a tracker's page, one line, with whatever could act or hide shown instead."""
    line = " ".join(text.split())
    odd = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(f"‹U+{ord(c):04X}›" if unicodedata.category(c) in odd else c for c in line)[:4000]
