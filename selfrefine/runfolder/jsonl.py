"""Files of JSON lines that survive: streams in and out, atomic replacement; part.py has a stage in progress.

A write is "committed" when it is fsynced together with whatever says that it exists (a rename, an idx line).
Every place where a crash could tell apart two orders of doing things has a failpoint.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import os
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import TextIO, TypeVar

import msgspec

from selfrefine import streams
from selfrefine.errors import DataError, RunFolderError, SelfrefineError
from selfrefine.runfolder import formats
from selfrefine.runfolder.failpoints import failpoint, torn

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}
CREATE = os.O_CREAT | os.O_CLOEXEC
T = TypeVar("T")


class StdoutClosed(SelfrefineError):
    """The reader of our stdout went away (`| head -1`). Nothing is to be printed about it.

    The exit code is what a shell shows for a process that died of SIGPIPE, as `cat` would.
    """

    exit_code = 128 + 13


# --- reading ---------------------------------------------------------------------------------------


@contextmanager
def open_input(path: str) -> Iterator[Iterable[bytes]]:
    """The lines of a file, unpacked by its ending, or of stdin for `-`. Raises: DataError, ConfigError."""
    if path in streams.STDIN:
        stdin = streams.reading()
        if stdin is None:
            raise DataError("cannot read stdin: it is closed")
        yield streams.lines(stdin)
        return
    with ExitStack() as opened:  # the errors of the `with` body are not ours to translate
        try:
            stream = opened.enter_context(Path(path).open("rb"))
            rows = formats.unpacked(path, stream)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
        yield rows


def lines(stream: Iterable[bytes], name: str, blank: bool = False) -> Iterator[tuple[str, bytes]]:
    """('name:12', stripped line) for every line that is not blank, or with `blank` for all; counted from 1.

    A byte order mark is dropped; what is no text at all is named. A stream is split on the newline byte only:
    U+2028 inside a string ends no row. One line in memory at a time.

    Raises: DataError when the stream cannot be read.
    """
    number = 0
    try:
        for number, line in enumerate(stream, 1):
            if number == 1 and (odd := formats.foreign(line, name)):
                raise DataError(f"{name}: {odd}")
            if (row := line.removeprefix(BOM_UTF8 if number == 1 else b"").strip()) or blank:
                yield f"{name}:{number}", row
    except formats.UNREADABLE as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {name} after line {number}: {why}") from None


def read_json(path: Path, kind: type[T]) -> T | None:
    """What a file of a run holds; None where there is no such file. Raises: RunFolderError: it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None


def torn_end(path: Path) -> bool:
    """Whether a file of lines ends within one. Reads its last byte."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 1))
        return size > 0 and stream.read(1) != b"\n"


class IdIndex:
    """Which ids were seen, in at most 32 bytes a row: a 64-bit hash and a line number.

    Open addressing in 64 shards that grow one at a time, so that growing never holds two whole tables.
    Two different ids share a hash, and are then called duplicates, with probability 3e-8 in a million rows.
    """

    _SHARDS = 64

    def __init__(self) -> None:
        self._shards = [_HashShard(8) for _ in range(self._SHARDS)]

    def check(self, id: str, where: str) -> None:
        """Remember `id` of the row at `where` ('file:12'). Raises: DataError naming both lines."""
        name, _, line = where.rpartition(":")
        key = (hash(id) & 0xFFFF_FFFF_FFFF_FFFF) or 1  # 0 marks a free slot
        at = key % self._SHARDS
        first = self._shards[at].put(key, int(line) if line.isdecimal() else 0)
        if first is not None:
            raise DataError(f"{where}: the id {id[:80]!r} was already used at {name}:{first}")
        if self._shards[at].crowded:
            self._shards[at] = self._shards[at].grown()


class _HashShard:
    def __init__(self, slots: int) -> None:
        self._keys = array("Q", bytes(8 * slots))
        self._lines = array("I", bytes(4 * slots))
        self._used = 0

    @property
    def crowded(self) -> bool:
        return 4 * self._used > 3 * len(self._keys)

    def put(self, key: int, line: int) -> int | None:
        """The line that had this key before, or None and the key is remembered."""
        keys, slots = self._keys, len(self._keys)
        slot = key // IdIndex._SHARDS % slots
        while keys[slot]:
            if keys[slot] == key:
                return self._lines[slot]
            slot = (slot + 1) % slots
        keys[slot], self._lines[slot] = key, line
        self._used += 1
        return None

    def grown(self) -> _HashShard:
        bigger = _HashShard(len(self._keys) * 3 // 2)
        for key, line in zip(self._keys, self._lines, strict=True):
            if key:
                bigger.put(key, line)
        return bigger


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes as 64 hex digits; read once per process, unless the file has changed since."""
    stat = path.stat()
    return _digest(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.lru_cache(maxsize=4096)
def _digest(path: Path, *_identity: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- writing ---------------------------------------------------------------------------------------


@contextmanager
def write_errors(path: Path, safe: str = "nothing committed is lost") -> Iterator[None]:
    """Turn a full or refusing disk into a RunFolderError that says what is `safe`; others are bugs."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            hint = f"{safe}; free space and run the same command again"
            raise RunFolderError(f"disk full: {path}: {hint}") from error
        if error.errno in _DENIED:
            raise RunFolderError(f"cannot write {path}: {error.strerror}") from error
        raise


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable (a rename alone is not)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def atomic_write(path: Path, data: bytes) -> None:
    """Replace `path` as a whole: a reader, or a crash, sees the old bytes or the new ones.

    The temporary name is fixed, so that what a killed process leaves is reused: one writer at a time.
    Raises: RunFolderError when the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with write_errors(path):
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_TRUNC | CREATE, 0o666)
            try:
                write_whole(fd, data, "atomic.half-written")
                os.fsync(fd)
            finally:
                os.close(fd)
            failpoint("atomic.before-rename")
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        failpoint("atomic.renamed")
        fsync_directory(path.parent)


def write_stdout(data: bytes) -> None:
    """Write and flush whole lines. Where a file behind `>` takes only some of them, it ends after the last
    whole one; from a pipe nothing can be taken back.

    Raises: StdoutClosed (quiet), RunFolderError (a full disk behind `>`).
    """
    stdout = streams.writing()
    if stdout is None:
        raise RunFolderError("cannot write to stdout: it is closed")
    try:
        stdout.buffer.flush()
        if (fd := _file_of(stdout)) is not None:
            _write_lines(fd, data)
            return
        view = memoryview(data)
        while view:  # with PYTHONUNBUFFERED the buffer is the bare file, whose writes may be short
            view = view[stdout.buffer.write(view) or 0 :]
        stdout.buffer.flush()
    except OSError as error:
        # What stays in the buffer is flushed again when the interpreter ends, with a traceback of its own.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stdout.fileno())
            os.close(null)
        if isinstance(error, BrokenPipeError):
            raise StdoutClosed("") from None
        raise RunFolderError(f"cannot write to stdout: {error.strerror}") from None


def _file_of(stdout: TextIO) -> int | None:
    """The descriptor of a stdout that is a regular file."""
    with suppress(OSError, ValueError, AttributeError):  # stdout of a test is no descriptor
        fd = stdout.fileno()
        return fd if S_ISREG(os.fstat(fd).st_mode) else None
    return None


def _write_lines(fd: int, data: bytes) -> None:
    """All of it, or as many whole lines of it as fit. Raises: OSError.

    Others may write to the same file, through this descriptor (`(a & b) > FILE`) or their own (`>>`). Half a
    line is cut off only where it is certainly ours: the file ends where our own bytes alone make it end.
    """
    appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND  # then the offset says nothing before a write
    end = os.fstat(fd).st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
    done = 0
    try:
        while done < len(data):
            wrote = os.write(fd, memoryview(data)[done:])
            done, end = done + wrote, end + wrote
    except OSError:
        half = done - (data.rfind(b"\n", 0, done) + 1)
        with suppress(OSError):  # a file that can only be appended to (chattr +a)
            if half and os.fstat(fd).st_size == end:
                os.ftruncate(fd, end - half)
                os.lseek(fd, end - half, os.SEEK_SET)  # where the next command of `( … ) > FILE` writes
        raise


def appears_whole(path: str) -> bool:
    """Whether an output is a file that `open_output` replaces when all of it is written."""
    target = Path(path)
    return path not in streams.STDOUT and (target.is_file() or not target.exists())


@contextmanager
def open_output(path: str, table: bool = False) -> Iterator[Callable[[bytes], object]]:
    """A function that writes bytes to a file, or to stdout for `-`. The file appears whole or not at all, and
    compressed where its ending says so.

    table: what is written is no rows, so that it may be called .parquet.
    Raises: RunFolderError, StdoutClosed; UsageError for an ending that is not written.
    """
    if not table:
        formats.check_output(path)
    if path in streams.STDOUT:
        yield write_stdout
        return
    target = Path(path)
    replace = appears_whole(path)  # otherwise a device or a pipe: nothing to replace
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp") if replace else target
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_TRUNC | (CREATE if replace else os.O_CLOEXEC), 0o666)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}") from None

    def write(data: bytes) -> None:
        with write_errors(target, "nothing was written"):
            write_whole(fd, data, "output.half")

    try:
        try:
            with formats.packed(path, write) as packed:
                yield packed
            if replace:
                with write_errors(target, "nothing was written"):
                    os.fsync(fd)
        finally:
            os.close(fd)
        if replace:
            temporary.rename(target)
            fsync_directory(target.parent)
    finally:
        if replace:
            temporary.unlink(missing_ok=True)


def write_whole(fd: int, data: bytes, half: str) -> None:
    """All of it: a single os.write may be short (a signal, a nearly full disk)."""
    for piece in torn(half, data):
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]
