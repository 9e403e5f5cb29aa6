"""Numbered places where a test may kill the process, to prove that a run survives it.

    SELFREFINE_FAILPOINT=N         SIGKILL at the N-th failpoint this process passes, counted from 1
    SELFREFINE_FAILPOINT_LOG=FILE  append "N name" for each one passed: how a test enumerates them

With neither set a failpoint is one comparison.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

_kill_at = 0
_log = ""
_armed = False
_passed = 0


def reset() -> None:
    """Read the environment again and count from 0: a forked child starts here."""
    global _kill_at, _log, _armed, _passed
    _kill_at = int(os.environ.get("SELFREFINE_FAILPOINT") or 0)
    _log = os.environ.get("SELFREFINE_FAILPOINT_LOG", "")
    _armed = bool(_kill_at or _log)
    _passed = 0


def failpoint(name: str) -> None:
    """Die here if this is the one; `name` is for the log only."""
    global _passed
    if not _armed:
        return
    _passed += 1
    if _log:
        with open(_log, "ab", buffering=0) as log:  # noqa: PTH123 (unbuffered: the next line may be SIGKILL)
            log.write(f"{_passed} {name}\n".encode())
    if _passed == _kill_at:
        os.kill(os.getpid(), signal.SIGKILL)


def torn(name: str, data: bytes) -> Iterator[bytes]:
    """`data` as the pieces to write: whole, or, when armed, two halves with a failpoint between."""
    if not _armed:
        yield data
        return
    half = len(data) // 2
    yield data[:half]
    failpoint(name)
    yield data[half:]


reset()
