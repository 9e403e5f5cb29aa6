"""A stage in progress: batches that count once they are whole and on disk; a crash's leavings are cut off."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from selfrefine.errors import RunFolderError
from selfrefine.runfolder.failpoints import failpoint
from selfrefine.runfolder.jsonl import CREATE, fsync_directory, write_errors, write_whole


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
        with write_errors(self.final, f"batches already committed: {self.batches:,}"):
            try:
                failpoint("part.before-data")
                write_whole(self._data_fd, data, "part.half-data")
                failpoint("part.data")
                os.fsync(self._data_fd)
                failpoint("part.data-synced")
                write_whole(self._idx_fd, line, "part.half-idx")
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
            failpoint("part.discarded")
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

    def __exit__(self, *_why: object) -> None:
        self.close()

    def _open(self) -> None:
        if not self.path.exists():
            self._idx_path.unlink(missing_ok=True)  # a crash came between finish's rename and this removal
        elif not self._idx_path.exists():
            # It is made before the data file and removed after: no crash does this.
            raise RunFolderError(f"{self._idx_path} is missing; {self._way_out()}")
        flags = os.O_RDWR | os.O_APPEND | CREATE
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
                        f"{self.path}: batch {number} has changed since it was committed; {self._way_out()}"
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
        return f"to redo this stage, delete {self.path.name} and {self._idx_path.name}"
