"""From exceptions and signals to exit codes: the one place where a command's end is decided."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from selfrefine import streams
from selfrefine.boundary import no_silent_exit, told_threads
from selfrefine.errors import Interrupted, SelfrefineError
from selfrefine.runfolder.jsonl import StdoutClosed

GRACE_S = 0.5


def guarded(app: Callable[[], Any]) -> int:
    """Run the app, return its exit code. What is no SelfrefineError is a bug: code 1, traceback in a file."""
    if sys.stderr is None:  # closed by the caller: what would be said there is lost, what is done is not
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (for as long as the process lives)
    try:
        with streams.held(), told_threads(), no_silent_exit():
            app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except StdoutClosed as closed:
        return closed.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the outermost frame: all else is a bug and is reported as one
        return _ended_by(error)
    return 0


def _ended_by(error: Exception) -> int:
    """Say how it ended; returns the exit code."""
    if (stopped := _interruption(error)) is not None:
        say(str(stopped))
        return 128 + stopped.signum
    if isinstance(error, SelfrefineError):
        say(f"error: {error}")
        return error.exit_code
    if isinstance(error, FileNotFoundError) and _folder_is_gone():
        say(
            "error: the folder that this command runs in was deleted: cd to one that exists, and run it again"
        )
        return 5
    _report_bug()
    return 1


def _folder_is_gone() -> bool:
    """No relative path means anything then, and whatever makes one absolute fails."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _interruption(error: BaseException | None) -> Interrupted | None:
    """The signal behind an error: a handler may raise amid a library's code, which makes its own error of it
    (an enum that is being defined: TypeError)."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return error


def say(message: str) -> None:
    """A line for a person. Where nobody reads stderr any more, that changes neither rows nor exit code."""
    from selfrefine.report.safe_text import safe_text

    with suppress(OSError):
        sys.stderr.write(safe_text(message, newlines=True) + "\n")
        sys.stderr.flush()


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
    say(f"bug: {last}\nthe traceback is in {file.name}; please report it (--debug shows it here)")


class Stop:
    """A signal that arrived; `check` raises it between batches. `name`: the command's, for its messages.

    Where what is under way would not be kept, the handler itself raises: while rows are waited for, and
    `at_once`.
    """

    def __init__(self, name: str = "") -> None:
        self.signum = 0
        self.way_on = "run the same command again to continue"
        self.at_once = False
        self.left: Callable[[], str] = lambda: ""
        """What is left of the running batch, in words."""
        self._prefix = f"{name}: " if name else ""
        self._unsaid = [True]

    def answer(self, signum: int) -> None:
        """Say, once, that the signal was noticed. From the handler or from the watching thread."""
        if streams.waiting:
            return  # the handler ends it
        with suppress(IndexError, OSError):  # said already (a pop is atomic), or nobody may be listening
            self._unsaid.pop()
            again = "press Ctrl-C" if signum == signal.SIGINT else "send SIGTERM"
            # Over the terminal's ^C, or a bar.
            start = "\r\x1b[K" if os.isatty(2) and os.environ.get("TERM") != "dumb" else ""
            doing = "stopping" if self.at_once else f"finishing the running batch{self.left()}"
            note = f"{start}{self._prefix}{doing}; {again} again to stop at once\n"
            os.write(2, note.encode())

    def check(self) -> None:
        if self.signum:
            self._unsaid.clear()
            name = signal.Signals(self.signum).name
            when = " while waiting for rows" if streams.waiting else " after the running batch"
            when = "" if self.at_once and not streams.waiting else when
            raise Interrupted(f"{self._prefix}stopped by {name}{when}; {self.way_on}", self.signum)


@contextmanager
def stoppable(name: str = "") -> Iterator[Stop]:
    """Inside, the first SIGINT or SIGTERM lets the batch finish (see `Stop`); a second one stops at once."""
    stop = Stop(name)

    def handle(signum: int, _frame: FrameType | None) -> None:
        if stop.signum:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        stop.signum = signum
        stop.answer(signum)
        if stop.at_once or streams.waiting:
            stop.check()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    _working.append(stop)
    before_wait, streams.stop_waiting = streams.stop_waiting, stop.check
    try:
        with _watched(stop):
            yield stop
    finally:
        _working.remove(stop)
        streams.stop_waiting = before_wait
        for number, handler in before.items():
            signal.signal(number, handler)


_working: list[Stop] = []


def _in_forked_child() -> None:
    """A reward's process pool ends its workers with SIGTERM, which is not for us. Ctrl-C is for us only: a
    child that wrote its signals into its parent's pipe would make one count as two."""
    if _working:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


os.register_at_fork(after_in_child=_in_forked_child)


@contextmanager
def _watched(stop: Stop) -> Iterator[None]:
    """Signals are answered by a thread too: Python runs a handler between two steps of the interpreter, and a
    matrix product or a backward pass may be one step for a minute."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    before = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, args=(reads, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writes)  # ends the thread
        watcher.join()
        os.close(reads)


def watch(
    reads: int,
    stop: Stop,
    sleep: Callable[[float], object] = time.sleep,
    end: Callable[[int], object] = os._exit,
) -> None:
    """Answer the first signal whose number arrives on `reads`, end the process at the second."""
    seen = False
    while number := os.read(reads, 1):
        if number[0] not in (signal.SIGINT, signal.SIGTERM):
            continue
        if seen:
            sleep(GRACE_S)  # the handler ends it as the shell expects, where it gets to run
            end(128 + number[0])
        seen = True
        stop.answer(number[0])
