"""One writer at a time: of a run, and of a name in the folder of runs."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"


def holder(run: Path) -> str | None:
    """Who writes to a run now: "process 12". The lock's file alone says nothing: it outlives its process."""
    try:
        fd = os.open(run / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, 20, 0).decode("ascii", errors="replace").strip()
        return f"process {pid}" if pid else "another process"
    finally:
        os.close(fd)
    return None


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Two processes that make a run of one name at one time: the second waits, then finds it there.

    Makes the folder. Where the body fails, what was made here goes again: the folder, and the lock's file.
    """
    file = folder / LOCK
    made_folder, made_file = not folder.exists(), not file.exists()
    fd = _waited_for(file)
    try:
        yield
    except BaseException:
        if made_file:
            file.unlink(missing_ok=True)  # while it is ours: who waits for it looks again
        if made_folder:
            with suppress(OSError):  # something else is in it
                folder.rmdir()
        raise
    finally:
        os.close(fd)


def _waited_for(file: Path) -> int:
    """A descriptor with the lock of the file that has this name now: it may be removed while we wait."""
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # the folder went in between
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), file.stat()):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
