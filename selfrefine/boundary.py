"""The one boundary behind which outside code runs: plugins, and files of the user's.

Whatever it does there has a defined end. What it raises becomes `Failed` with a reason: SystemExit,
KeyboardInterrupt and RecursionError too, while the user's own Ctrl-C still interrupts. What it prints goes to
stderr, and its stdin is empty. A warning is shown once per place, with the code's name. Afterwards the
working directory, signal handlers, timers, recursion limit and standard streams are what they were.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from selfrefine import streams
from selfrefine.errors import ConfigError, SelfrefineError

_KEPT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD, signal.SIGALRM)
_LONGEST_REASON = 1000
_OFTEN = 3
"""Time limits that a call has swallowed when it is said."""
_warned: set[tuple[str, type[Warning], str, int]] = set()


class Failed(Exception):
    """What outside code raised or did, in one line."""


class _TimedOut(BaseException):
    """No Exception: `except Exception` in a reward must not catch it."""


def escaped(text: object) -> str:
    """As text that can be written as UTF-8: a lone surrogate becomes `\\udc80`."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def why(error: BaseException) -> str:
    """What outside code raised, in one line."""
    try:
        text = " ".join(escaped(error).split())
    except BaseException:  # noqa: BLE001  an error whose text raises
        text = "(its message cannot be shown)"
    name = escaped(type(error).__name__)
    return f"{name}: {text[:_LONGEST_REASON]}" if text else name


@contextmanager
def behind(who: str, timeout_s: float | None = None) -> Iterator[None]:
    """Run outside code; `who` names it in its warnings.

    `timeout_s` interrupts Python code, waiting included, but not a C function that never returns to Python.
    Raises: Failed with the reason. Our own errors and the user's Ctrl-C pass through. ConfigError for a
    timeout outside the main thread, since only that one gets signals.
    """
    main = threading.current_thread() is threading.main_thread()
    if timeout_s is not None and not main:
        raise ConfigError(
            "reward.timeout_s works in the main thread only; in other threads set reward.isolate = true"
        )
    process, depth = os.getpid(), sys.getrecursionlimit()
    before, folder = (sys.stdin, sys.stdout, sys.stderr), _open_folder()
    watch = _Watch(who, timeout_s, main)
    sys.stdin, sys.stdout, sys.stderr = streams.others()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _named(who)
            watch.begin()
            try:
                yield
            finally:
                watch.armed = False
                if os.getpid() != process:  # a child that it forked: the rest of the command is not its work
                    os._exit(0 if sys.exc_info()[0] is None else 1)
    except BaseException as error:
        if watch.pressed:  # first: a boundary inside this one makes a Failed of it
            raise KeyboardInterrupt from None
        if not watch.expired:
            if isinstance(error, Failed | SelfrefineError):
                raise
            raise Failed(why(error)) from error
    finally:
        sys.setrecursionlimit(depth)
        watch.restore()
        streams.mend()
        if streams.is_held():  # a thread it left running may still print
            sys.stdin, sys.stdout, _ = streams.others()
            sys.stderr = before[2]
        else:
            sys.stdin, sys.stdout, sys.stderr = before
        if folder is not None:
            os.fchdir(folder)
            os.close(folder)
    if watch.pressed:  # swallowed inside
        raise KeyboardInterrupt
    if watch.expired:
        raise Failed(f"no answer within {timeout_s:g} s")


class _Watch:
    """Signals while outside code runs: its time limit, and whether a Ctrl-C came from outside."""

    def __init__(self, who: str, timeout_s: float | None, main: bool) -> None:
        self.who, self.timeout_s, self.main = who, timeout_s, main
        self.pressed = self.expired = self.armed = False
        self._swallowed = 0
        self._handlers = [(number, signal.getsignal(number)) for number in _KEPT_SIGNALS]
        self._timer = signal.getitimer(signal.ITIMER_REAL)
        self._blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        if main:
            self._wakeup = signal.set_wakeup_fd(-1)  # asyncio takes it away
            signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)

    def begin(self) -> None:
        if not self.main:
            return
        self.armed = True
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._press)
        if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:  # which ends the process
            signal.signal(signal.SIGALRM, lambda *_: None)
        if self.timeout_s is not None:
            signal.signal(signal.SIGALRM, self._expire)
            signal.setitimer(signal.ITIMER_REAL, self.timeout_s, self.timeout_s)

    def restore(self) -> None:
        self.armed = False
        if not self.main:
            return
        if signal.getitimer(signal.ITIMER_REAL) != self._timer and (self.timeout_s or not self._timer[0]):
            signal.setitimer(signal.ITIMER_REAL, *self._timer)
        for number, handler in self._handlers:
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        with suppress(ValueError, OSError):  # it closed the descriptor, too
            signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)

    def _press(self, _signum: int, _frame: FrameType | None) -> None:
        self.pressed = True
        if self.armed:
            raise KeyboardInterrupt

    def _expire(self, _signum: int, _frame: FrameType | None) -> None:
        if self.armed:  # again and again, where it is swallowed
            self._swallowed += self.expired
            if self._swallowed == _OFTEN:
                said = f"{self.who}: goes on after its time limit, because its code catches every exception; "
                with suppress(OSError):
                    os.write(2, f"{said}stop it by two Ctrl-C, and use reward.isolate=true\n".encode())
            self.expired = True
            raise _TimedOut


@contextmanager
def no_silent_exit() -> Iterator[None]:
    """Inside, outside code cannot end the process without a word.

    `os._exit` raises SystemExit (in a child that it forked it exits), and after a crash in C code Python says
    in which line that was.
    """
    process, leave, told = os.getpid(), os._exit, faulthandler.is_enabled()

    def refuse(status: int) -> None:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse  # type: ignore[assignment]
    if not told:
        faulthandler.enable(2, all_threads=False)
    try:
        yield
    finally:
        os._exit = leave
        if not told:
            faulthandler.disable()


@contextmanager
def told_threads() -> Iterator[None]:
    """What a thread of outside code raises is one line per place, not a traceback per row."""
    told, before = set[tuple[type[BaseException], str, int]](), threading.excepthook

    def tell(raised: threading.ExceptHookArgs) -> None:
        at = raised.exc_traceback
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        if at is None or raised.exc_value is None or "--debug" in sys.argv:
            before(raised)
            return
        file = at.tb_frame.f_code.co_filename
        key = raised.exc_type, file, at.tb_lineno
        if key not in told:
            told.add(key)
            where = f"{os.path.basename(file)}:{at.tb_lineno}"  # noqa: PTH119
            with suppress(OSError):
                sys.stderr.write(f"in a thread: {why(raised.exc_value)} ({where})\n")

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before


def _named(who: str) -> Any:
    stderr = sys.stderr

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
    ) -> None:
        key = who, category, filename, lineno
        if key not in _warned:
            _warned.add(key)
            where = f"{os.path.basename(filename)}:{lineno}"  # noqa: PTH119
            text = " ".join(escaped(message).split())
            stderr.write(f"{who}: {category.__name__}: {text} ({where})\n")

    return show


def _open_folder() -> int | None:
    try:
        return os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # deleted, or not readable: then there is nothing to come back to
        return None
