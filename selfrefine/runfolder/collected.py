"""What `runs gc` took out of a run: files of rejected adapters, which nothing needs any more.

RUN/collected.json names them before the first of them is removed, each with the sha256 that it was committed
with. A file that is named there and gone was collected; one that is gone and not named is damage, as ever.
Rounds themselves are not written to.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from selfrefine.runfolder.failpoints import failpoint
from selfrefine.runfolder.jsonl import atomic_write, fsync_directory, read_json, write_errors

COLLECTED = "collected.json"


class Collectable(Struct, frozen=True, kw_only=True):
    """Something that `runs gc` can remove."""

    path: Path
    why: str
    files: dict[str, str] = {}
    """Committed ones among its files, by path within the run, with their sha256."""
    size: int
    """In bytes."""


def collected(run: Path) -> dict[str, str]:
    """Path within the run to sha256, of what was removed. Raises: RunFolderError: the list is damaged."""
    return read_json(run / COLLECTED, dict[str, str]) or {}


def was_collected(run: Path, path: Path, digest: str) -> bool:
    """Whether a round's file is gone because it was collected; `digest` is what its round.json says of it."""
    return collected(run).get(path.relative_to(run).as_posix()) == digest


def size_of(path: Path) -> int:
    """Bytes of the files under a path; a link counts as itself."""
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(size_of(one) for one in path.iterdir()) if path.is_dir() else 0


def scratch(folder: Path) -> Iterator[Path]:
    """What a process that was killed left half made in a committed round or in the run, and no one reads."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        hidden = path.name.startswith(".") and path.name.endswith((".tmp", ".building", ".new", ".old"))
        if hidden or path.name.endswith(".ckpt"):
            yield path


def remove(run: Path, found: Sequence[Collectable]) -> None:
    """Under the run's lock. Killed at any point, the same command again does the rest.

    Raises: RunFolderError: the disk is full or read-only.
    """
    files = {name: digest for one in found for name, digest in one.files.items()}
    if files:
        told = collected(run) | files
        atomic_write(
            run / COLLECTED, msgspec.json.format(msgspec.json.encode(told, order="deterministic")) + b"\n"
        )
        failpoint("collect.told")
    with write_errors(run):
        for one in found:
            if one.path.is_dir() and not one.path.is_symlink():
                shutil.rmtree(one.path)
            else:
                one.path.unlink(missing_ok=True)
            fsync_directory(one.path.parent)
