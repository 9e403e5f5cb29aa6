"""Files of JSON lines that survive: streams in, streams out, atomic replacement, a stage in progress.

A write is "committed" when it is fsynced together with whatever says that it exists (a rename, an idx line).
Every place where a crash could tell apart two orders of doing things has a failpoint.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import sys
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec
from msgspec import Raw, Struct

from selfrefine.errors import DataError, RunFolderError, SelfrefineError
from selfrefine.runfolder.failpoints import failpoint, torn

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}
_CREATE = os.O_CREAT | os.O_CLOEXEC


class StdoutClosed(SelfrefineError):
    """The reader of our stdout went away (`| head -1`). Nothing is to be printed about it.

    The exit code is what a shell shows for a process that died of SIGPIPE, as `cat` would.
    """

    exit_code = 128 + 13


# --- reading ---------------------------------------------------------------------------------------


@contextmanager
def open_input(path: str) -> Iterator[BinaryIO]:
    """A file, or stdin for `-`, as bytes. Raises: DataError when it cannot be read."""
    if path == "-":
        if sys.stdin is None:
            raise DataError("cannot read stdin: it is closed")
        yield sys.stdin.buffer
        return
    try:
        stream = Path(path).open("rb")  # noqa: SIM115 (the errors of the `with` body are not ours to translate)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    with stream:
        yield stream


def lines(stream: Iterable[bytes], name: str, blank: bool = False) -> Iterator[tuple[str, bytes]]:
    """('name:12', stripped line) for every line that is not blank, or with `blank` for all; counted from 1.

    A byte order mark is dropped. A stream is split on the newline byte only: U+2028 inside a string ends no
    row. One line in memory at a time. Raises: DataError when the stream cannot be read.
    """
    number = 0
    try:
        for number, line in enumerate(stream, 1):
            if (row := line.removeprefix(BOM_UTF8 if number == 1 else b"").strip()) or blank:
                yield f"{name}:{number}", row
    except OSError as error:
        raise DataError(f"cannot read {name} after line {number}: {error.strerror}") from None


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
            fd = os.open(temporary, os.O_WRONLY | os.O_TRUNC | _CREATE, 0o666)
            try:
                _write(fd, data, "atomic.half-written")
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
    """Write and flush. Raises: StdoutClosed (quiet), RunFolderError (a full disk behind `>`)."""
    if sys.stdout is None:
        raise RunFolderError("cannot write to stdout: it is closed")
    try:
        view = memoryview(data)
        while view:  # with PYTHONUNBUFFERED the buffer is the bare file, whose writes may be short
            view = view[sys.stdout.buffer.write(view) or 0 :]
        sys.stdout.buffer.flush()
    except OSError as error:
        # What stays in the buffer is flushed again when the interpreter ends, with a traceback of its own.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        if isinstance(error, BrokenPipeError):
            raise StdoutClosed("") from None
        raise RunFolderError(f"cannot write to stdout: {error.strerror}") from None


@contextmanager
def open_output(path: str) -> Iterator[Callable[[bytes], object]]:
    """A function that writes bytes to a file, or to stdout for `-`. The file appears whole or not at all.

    Raises: RunFolderError, StdoutClosed.
    """
    if path == "-":
        yield write_stdout
        return
    target = Path(path)
    replace = target.is_file() or not target.exists()  # otherwise a device or a pipe: nothing to replace
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp") if replace else target
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_TRUNC | (_CREATE if replace else os.O_CLOEXEC), 0o666)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}") from None

    def write(data: bytes) -> None:
        with write_errors(target, "nothing was written"):
            _write(fd, data, "output.half")

    try:
        try:
            yield write
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


def _write(fd: int, data: bytes, half: str) -> None:
    """All of it: a single os.write may be short (a signal, a nearly full disk)."""
    for piece in torn(half, data):
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]


# --- a stage in progress ---------------------------------------------------------------------------


class _Commit(Struct, frozen=True, kw_only=True):
    end: int
    """Size of the data file in bytes after this batch."""
    sha256: str
    rows: int
    note: Raw = Raw(b"null")
    """What the stage says of this batch besides its rows (JSON): its figures, to be summed at the end."""


class PartFile:
    """`FINAL.part`, appended by whole batches, and `FINAL.part.idx`, a line for every batch that counts.

    The data is fsynced before its idx line is written, so a line in the idx means that its batch is there;
    what lies beyond the last line is a batch that never counted and is cut on open.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = final.with_name(final.name + ".part")
        self._idx_path = final.with_name(final.name + ".part.idx")
        self.row_count = 0
        self.size = 0
        """Bytes committed."""
        self.notes: list[bytes] = []
        """One for each batch."""
        self._idx_size = 0
        self._data_fd = self._idx_fd = -1

    @classmethod
    def open(cls, final: Path) -> PartFile:
        """Begin or continue. Raises: RunFolderError when committed bytes are missing or changed."""
        part = cls(final)
        try:
            with write_errors(part.path):
                part._open()
                part._read_idx()
                part._cut_tail()
        except BaseException:
            part.close()
            raise
        return part

    @property
    def batches(self) -> int:
        return len(self.notes)

    def append(self, rows: Sequence[bytes], note: bytes = b"null") -> None:
        """Commit one batch (which may be empty). Rows are without their newline, `note` is JSON.

        Raises: RunFolderError when the disk is full: earlier batches are safe, this one is as if never tried.
        """
        data = b"".join(row + b"\n" for row in rows)
        if data.count(b"\n") != len(rows):
            raise ValueError("a row holds a newline")
        digest = hashlib.sha256(data).hexdigest()
        commit = _Commit(end=self.size + len(data), sha256=digest, rows=len(rows), note=Raw(note))
        line = msgspec.json.encode(commit) + b"\n"
        with write_errors(self.final, f"{self.batches} batches are safe"):
            try:
                failpoint("part.before-data")
                _write(self._data_fd, data, "part.half-data")
                failpoint("part.data")
                os.fsync(self._data_fd)
                failpoint("part.data-synced")
                _write(self._idx_fd, line, "part.half-idx")
                failpoint("part.idx")
                os.fsync(self._idx_fd)
            except OSError:
                self._cut_tail()
                raise
        failpoint("part.committed")
        self._count(commit, len(line))

    def rows(self) -> Iterator[bytes]:
        """The committed rows, without their newlines."""
        with self.path.open("rb") as stream:
            for _ in range(self.row_count):
                yield stream.readline()[:-1]

    def finish(self) -> Path:
        """The part becomes the artifact in one rename. Closes this PartFile."""
        with write_errors(self.final):
            os.fsync(self._data_fd)
            failpoint("part.before-rename")
            self.path.rename(self.final)
            failpoint("part.renamed")
            fsync_directory(self.final.parent)
            self._idx_path.unlink()
            failpoint("part.idx-removed")
        self.close()
        return self.final

    def discard(self) -> None:
        """What was made is refused: the stage begins anew. The data goes first, as `_open` expects."""
        with write_errors(self.final):
            self.path.unlink()
            self._idx_path.unlink()
            fsync_directory(self.final.parent)
        self.close()

    def close(self) -> None:
        for fd in (self._data_fd, self._idx_fd):
            if fd >= 0:
                os.close(fd)
        self._data_fd = self._idx_fd = -1

    def __enter__(self) -> PartFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        if not self.path.exists():
            self._idx_path.unlink(missing_ok=True)  # a crash came between finish's rename and this removal
        elif (
            not self._idx_path.exists()
        ):  # it is made before the data file and removed after: no crash does this
            raise RunFolderError(f"{self._idx_path} is missing; {self._way_out()}")
        flags = os.O_RDWR | os.O_APPEND | _CREATE
        self._idx_fd = os.open(self._idx_path, flags, 0o666)
        failpoint("part.idx-created")
        self._data_fd = os.open(self.path, flags, 0o666)
        failpoint("part.created")
        fsync_directory(self.final.parent)

    def _read_idx(self) -> None:
        """Count the batches that have a whole idx line, and check their bytes."""
        text = self._idx_path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        with self.path.open("rb") as data:
            for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
                try:
                    commit = msgspec.json.decode(line, type=_Commit)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    raise RunFolderError(f"{self._idx_path}:{number} is damaged; {self._way_out()}") from None
                batch = data.read(max(commit.end - self.size, 0))
                if len(batch) != commit.end - self.size or hashlib.sha256(batch).hexdigest() != commit.sha256:
                    raise RunFolderError(
                        f"{self.path}: batch {number} is not what was committed; {self._way_out()}"
                    )
                self._count(commit, len(line) + 1)

    def _count(self, commit: _Commit, idx_bytes: int) -> None:
        self.notes.append(bytes(commit.note))
        self.row_count += commit.rows
        self.size = commit.end
        self._idx_size += idx_bytes

    def _cut_tail(self) -> None:
        """Drop what was written after the last committed batch."""
        os.ftruncate(self._data_fd, self.size)
        os.ftruncate(self._idx_fd, self._idx_size)
        failpoint("part.tail-cut")

    def _way_out(self) -> str:
        return f"to do this stage again, delete {self.path.name} and {self._idx_path.name}"
