"""From exceptions and signals to exit codes: the one place where a command's end is decided."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from selfrefine import streams
from selfrefine.errors import Interrupted, SelfrefineError
from selfrefine.runfolder.jsonl import StdoutClosed


def guarded(app: Callable[[], Any]) -> int:
    """Run the app, return its exit code. What is no SelfrefineError is a bug: code 1, traceback in a file."""
    if sys.stderr is None:  # closed by the caller: what would be said there is lost, what is done is not
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (for as long as the process lives)
    try:
        with streams.held():
            app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except StdoutClosed as closed:
        return closed.exit_code
    except Interrupted as stopped:
        _say(str(stopped))
        return 128 + stopped.signum
    except SelfrefineError as error:
        _say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception:  # noqa: BLE001 - the outermost frame: everything left is a bug and is reported as one
        _report_bug()
        return 1
    return 0


def _say(message: str) -> None:
    from selfrefine.report.safe_text import safe_text

    sys.stderr.write(safe_text(message, newlines=True) + "\n")


def _report_bug() -> None:
    trace = traceback.format_exc()
    last = trace.rstrip().splitlines()[-1]
    if "--debug" in sys.argv:
        sys.stderr.write(trace)
        return
    with tempfile.NamedTemporaryFile(
        "w", prefix="selfrefine-bug-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
    ) as file:
        file.write(f"{' '.join(sys.argv)}\n{trace}")
    _say(f"bug: {last}\nthe traceback is in {file.name}; please report it (--debug shows it here)")


class Stop:
    """A signal that arrived; `check` raises it between batches."""

    def __init__(self) -> None:
        self.signum = 0
        self.way_on = "run the same command again to continue"

    def check(self) -> None:
        if self.signum:
            name = signal.Signals(self.signum).name
            raise Interrupted(f"stopped by {name} after the running batch; {self.way_on}", self.signum)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Inside, the first SIGINT or SIGTERM lets the batch finish; a second one stops at once."""
    stop = Stop()

    def handle(signum: int, _frame: FrameType | None) -> None:
        if stop.signum:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        stop.signum = signum
        note = "\nfinishing the running batch; once more to stop at once\n"
        with suppress(OSError):  # nobody may be listening
            os.write(2, note.encode())

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
