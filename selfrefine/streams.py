"""stdin and stdout belong to data: while a command runs, other code has neither.

During a command (`held`) descriptor 0 is /dev/null and descriptor 1 is stderr, so that what a reward, a
library or a child process prints cannot land among the rows, and only we read them. The real ones have
descriptors of their own, which no child inherits. Without `held` (a Python program that imports selfrefine)
they are `sys.stdin` and `sys.stdout`.
"""

from __future__ import annotations

import fcntl
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

STDIN = frozenset({"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})
STDOUT = frozenset({"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})
"""What a user calls them. As paths they would lead to descriptors 0 and 1, which other code has."""

_held: tuple[TextIO | None, TextIO | None] | None = None
_stderr: int | None = None
waiting = False
"""Whether rows are being read from stdin: no work is under way that a signal could let finish."""
stop_waiting: Callable[[], object] | None = None
"""Raises where a signal has arrived already. Set by whoever handles signals."""


def is_held() -> bool:
    return _held is not None


def reading() -> TextIO | None:
    """Where data comes from; None where the caller closed it."""
    return sys.stdin if _held is None else _held[0]


def lines(stdin: TextIO) -> Iterator[bytes]:
    """Of stdin. A signal handler that finds `waiting` may raise."""
    global waiting
    while True:
        waiting = True
        try:
            if stop_waiting is not None:
                stop_waiting()
            line = stdin.buffer.readline()
            if not line and stop_waiting is not None:  # a Ctrl-C ends the program that writes them, too
                stop_waiting()
        finally:
            waiting = False
        if not line:
            return
        yield line


def writing() -> TextIO | None:
    """Where data goes; None where the caller closed it."""
    return sys.stdout if _held is None else _held[1]


def hold() -> tuple[int | None, int | None]:
    """Keep stdin and stdout for data from now on. Returns what they were, as descriptors."""
    global _held, _stderr
    kept = _copy(0), _copy(1)
    _stderr = _copy(2)
    _fill({0, 1})
    _held = _text(sys.stdin, 0, kept[0], "r"), _text(sys.stdout, 1, kept[1], "w")
    sys.stdin, sys.stdout = _held
    return kept


def mend() -> None:
    """Open again what other code has closed of descriptors 0 to 2: the next file would get such a number."""
    if _held is not None and (closed := {fd for fd in range(3) if not _is_open(fd)}):
        _fill(closed)


def _fill(fds: set[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if 2 in fds and _stderr is not None:
        os.dup2(_stderr, 2)
    if 0 in fds:
        _point(0, null)
    if 1 in fds:
        _point(1, 2 if _is_open(2) else null)
    if null > 2:
        os.close(null)


def _is_open(fd: int) -> bool:
    with suppress(OSError):
        os.fstat(fd)
        return True
    return False


@contextmanager
def held() -> Iterator[None]:
    """The same until the end of the block, for tests that run a command in their own process."""
    global _held
    if _held is not None:
        yield
        return
    before = sys.stdin, sys.stdout, sys.stderr
    kept = hold()
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # the reader went away: `write_stdout` has said so
            if (stdout := writing()) is not None:
                stdout.flush()
        for number, fd in enumerate(kept):
            if fd is None:
                os.close(number)
            else:
                os.dup2(fd, number)
        _held = None
        sys.stdin, sys.stdout, sys.stderr = before
        for fd in (*kept, _stderr):
            if fd is not None:
                os.close(fd)


def others() -> tuple[TextIO, TextIO, TextIO]:
    """The standard streams of other code: an empty stdin, and stderr twice. It may close them."""
    raw: Any = _Stderr()
    text = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), text, text


class _Stderr(io.RawIOBase):
    """The stderr of now, in a wrapper that can be closed without closing it."""

    def __init__(self) -> None:
        self._to = sys.stderr

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._to.fileno()

    def isatty(self) -> bool:
        return self._to.isatty()

    def write(self, data: object) -> int:
        raw = bytes(data)  # type: ignore[call-overload]
        self._to.write(raw.decode(errors="replace"))
        return len(raw)


def _copy(fd: int) -> int | None:
    with suppress(OSError):  # closed by the caller
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    return None


def _point(fd: int, to: int) -> None:
    if fd == to:
        os.set_inheritable(fd, True)
    else:
        os.dup2(to, fd)


def _text(stream: TextIO | None, fd: int, kept: int | None, mode: str) -> TextIO | None:
    """`stream` on its new descriptor; one that is no descriptor (tests) stays as it is."""
    if stream is None or kept is None:
        return None if kept is None and _descriptor(stream) == fd else stream
    if _descriptor(stream) != fd:
        return stream
    raw: Any = os.fdopen(kept, f"{mode}b", closefd=False)
    return io.TextIOWrapper(raw, stream.encoding, stream.errors)


def _descriptor(stream: TextIO | None) -> int | None:
    with suppress(OSError, ValueError, AttributeError):
        return stream.fileno()  # type: ignore[union-attr]
    return None
