"""One round's folder: its files, its directories, and the commit that makes the round count.

Everything here can be killed at any instant and called again. Names of things in progress begin with a dot
or end in `.part`, `.part.idx`, `.ckpt`; they are no artifacts and are gone when the round is committed.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from selfrefine.errors import RunFolderError, SelfrefineError
from selfrefine.records import Sample, decode_sample
from selfrefine.runfolder import order
from selfrefine.runfolder.failpoints import failpoint
from selfrefine.runfolder.jsonl import (
    atomic_write,
    fsync_directory,
    lines,
    read_json,
    sha256_file,
    write_errors,
)
from selfrefine.runfolder.part import PartFile
from selfrefine.runfolder.summaries import Cost, RoundSummary, StageCost, decode_round
from selfrefine.words import count

U = TypeVar("U")
S = TypeVar("S", bound=msgspec.Struct)

ROUND_FILE = "round.json"
TRAINING_LOG = "train"
"""train.jsonl: a row per optimizer step."""
_IN_PROGRESS = (".part", ".part.idx", ".ckpt")


class RoundDir:
    """`round-000`, `round-001`, … or `final` in a run. Made on disk by the first write into it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def index(self) -> int:
        """The round's number. Raises: ValueError for `final`, which has none."""
        return int(self.path.name.removeprefix("round-"))

    @property
    def committed(self) -> bool:
        return (self.path / ROUND_FILE).is_file()

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    def file(self, name: str) -> Path:
        """`generate` → …/generate.jsonl, whether it is there or not."""
        return self.path / f"{name}.jsonl"

    def summary_file(self, name: str) -> Path:
        """`generate` → …/generate.json: what the stage came to."""
        return self.path / f"{name}.json"

    def stage_summary(self, name: str, kind: type[S]) -> S | None:
        """What a stage came to; None where it has not finished. Raises: RunFolderError."""
        return read_json(self.summary_file(name), kind)

    def stages(self) -> list[str]:
        """Names of the stages whose rows are there, sorted; the training log has no rows."""
        return sorted(path.stem for path in self.path.glob("*.jsonl") if path.stem != TRAINING_LOG)

    def cost(self) -> Cost:
        """Tokens of all the stages that have a summary."""
        found = (path.stem for path in sorted(self.path.glob("*.json")) if path.name != ROUND_FILE)
        costs = (self.stage_summary(name, StageCost) for name in found)
        return sum((one.cost for one in costs if one is not None), start=Cost())

    def has(self, name: str) -> bool:
        """Is the stage's file, or the directory of that name, there and finished?"""
        known = order.ARTIFACTS.get(name)
        whole = self.file(name) if known is None else self.path / known.file
        return whole.is_file() or (self.path / name).is_dir()

    def summary(self) -> RoundSummary:
        """Raises: RunFolderError when the round is not committed or its round.json is damaged."""
        path = self.path / ROUND_FILE
        try:
            return decode_round(path.read_bytes())
        except FileNotFoundError:
            raise RunFolderError(f"{self.path} is not committed: it has no {ROUND_FILE}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RunFolderError(f"{path} is damaged: {error}") from None

    def require(self, name: str, without: Collection[str] = ("reflect", "critique")) -> None:
        """The stage's file, or the adapter, must be there. Raises: RunFolderError: what to run first, in
        order; `without`: verbs that the run leaves out (`order.left_out`)."""
        if self.has(name):
            return
        known = order.ARTIFACTS.get(name)
        path = self.file(name) if known is None else self.path / known.file
        if self.committed or known is None or not order.BY_VERB[order.MADE_BY[name].verb].loops:
            raise RunFolderError(f"{path} is missing")
        run = called(self.path.parent)
        verbs = order.first_to_run(name, self.has, without)
        steps = ", then ".join(f"`selfrefine {verb} --run {run}`" for verb in verbs)
        raise RunFolderError(f"{path} is missing: first run {steps}")

    def unchanged(self, name: str) -> Path:
        """The file of a finished stage, of a committed round only as it was committed.

        Raises: RunFolderError (missing, changed since).
        """
        path = self.file(name)
        self.require(name)
        if self.committed and sha256_file(path) != self.summary().artifacts.get(path.name):
            raise RunFolderError(f"{path} was changed after its round was committed")
        return path

    def samples(self, name: str) -> Iterator[Sample]:
        """The rows of such a file. Raises: RunFolderError, DataError (a row that does not decode)."""
        path = self.unchanged(name)
        with path.open("rb") as stream:
            for where, line in lines(stream, str(path)):
                yield decode_sample(line, where)

    def stage(
        self,
        name: str,
        plan: Sequence[U],
        work: Callable[[U], tuple[Sequence[bytes], bytes]],
        *,
        should_stop: Callable[[], object] | None = None,
        resumed: Callable[[Iterator[bytes]], object] | None = None,
        summarise: Callable[[Sequence[bytes]], bytes] | None = None,
    ) -> Path:
        """Make NAME.jsonl, one committed batch per unit of `plan`, going on where an earlier process died.

        `plan` must come out the same on every call: computed from frozen inputs, never from what is done.
        `work(unit)` gives a batch's rows (bytes, no newline) and a note on it (JSON).
        `resumed(rows)` is given the rows that an earlier process committed, before the first unit.
        `should_stop()` is called before each unit; it stops the stage by raising.
        `summarise(notes)` makes NAME.json, which is there before NAME.jsonl is. Where it refuses what was
        made (a reward that scored no row), nothing of it stays: the same command makes it again.
        Returns the finished file's path, at once if it is there. Raises: RunFolderError.
        """
        final = self.file(name)
        if final.is_file():
            final.with_name(final.name + ".part.idx").unlink(missing_ok=True)
            return final
        self._prepare()
        with PartFile.open(final) as part:
            if part.batches > len(plan):
                raise RunFolderError(
                    f"{part.path} has {count(part.batches, 'batch', 'batches')}, the plan {len(plan):,}: it "
                    "was made from other input or settings; delete it and its .idx to redo the stage"
                )
            if resumed:
                resumed(part.rows())
            for unit in plan[part.batches :]:
                if should_stop:
                    should_stop()
                part.append(*work(unit))
            if summarise:
                try:
                    summary = summarise(part.notes)
                except SelfrefineError:
                    part.discard()
                    raise
                atomic_write(self.summary_file(name), summary)
            return part.finish()

    def put(self, name: str, data: bytes) -> Path:
        """Make or replace the file NAME whole. Raises: RunFolderError."""
        self._prepare()
        atomic_write(self.path / name, data)
        return self.path / name

    def put_directory(self, name: str, build: Callable[[Path], object]) -> Path:
        """Make the directory NAME whole: `build` fills an empty one beside it, which is renamed once.

        Returns its path, at once if it is there. Raises: RunFolderError when the disk is full.
        """
        final = self.path / name
        if final.is_dir():
            return final
        self._prepare()
        building = self.path / f".{name}.building"
        with write_errors(final):
            with gone_if_it_fails(building):
                _build(building, build)
                failpoint("directory.before-rename")
                building.rename(final)
            failpoint("directory.renamed")
            fsync_directory(self.path)
        return final

    def replace_directory(self, name: str, build: Callable[[Path], object]) -> Path:
        """Replace the directory NAME (a training checkpoint) so that one whole version always exists.

        Names ending in `.ckpt` are scratch: `commit` removes them. Raises: RunFolderError.
        """
        self._prepare()
        current = self.directory(name) or self.path / name
        old = self.path / f".{name}.old"
        with write_errors(current):
            new = self.path / f".{name}.new"
            with gone_if_it_fails(new):
                _build(new, build)
            failpoint("replace.built")
            if current.is_dir():
                current.rename(old)
                failpoint("replace.old-away")
            new.rename(current)
            failpoint("replace.renamed")
            fsync_directory(self.path)
            if old.is_dir():
                shutil.rmtree(old)
            failpoint("replace.old-removed")
        return current

    def directory(self, name: str) -> Path | None:
        """The newest whole version of what `replace_directory` keeps, or None. It mends: lock first."""
        current, old, new = self.path / name, self.path / f".{name}.old", self.path / f".{name}.new"
        if not current.is_dir() and old.is_dir():
            # The old one is moved away only when the new one is whole.
            (new if new.is_dir() else old).rename(current)
            fsync_directory(self.path)
        for leftover in (old, new):
            if leftover.is_dir():
                shutil.rmtree(leftover)
        return current if current.is_dir() else None

    def digests(self) -> dict[str, str]:
        """sha256 of every artifact, by its path within the folder; round.json is not among them."""
        found = {}
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path)
            scratch = any(part.startswith(".") or part.endswith(_IN_PROGRESS) for part in name.parts)
            if path.is_file() and not scratch and str(name) != ROUND_FILE:
                found[name.as_posix()] = sha256_file(path)
        return found

    def in_progress(self) -> list[Path]:
        """Stages that were begun and not finished."""
        return sorted(self.path.glob("*.jsonl.part"))

    def commit(self, summary: RoundSummary) -> RoundSummary:
        """Fill in the artifacts' hashes, write round.json last, point the run's adapter link.

        Raises: RunFolderError when committed already, or while a stage is in progress.
        """
        if summary.index != self.index:
            raise ValueError(f"summary of round {summary.index} for {self.path.name}")
        self._prepare()
        if unfinished := self.in_progress():
            raise RunFolderError(f"{unfinished[0]} is in progress: finish that stage before the commit")
        with write_errors(self.path):
            sweep(self.path)
            for scratch in (*self.path.glob("*.ckpt"), *self.path.glob(".*.new"), *self.path.glob(".*.old")):
                shutil.rmtree(scratch)
            failpoint("commit.swept")
            full = msgspec.structs.replace(summary, artifacts=self.digests())
            # Sorted, because two processes may have filled a table in another order.
            text = msgspec.json.format(msgspec.json.encode(full, order="deterministic"))
            atomic_write(self.path / ROUND_FILE, text + b"\n")
            failpoint("commit.round-json")
            point_adapter(self.path.parent, full.accepted_round)
        return full

    def _prepare(self) -> None:
        if self.committed:
            raise RunFolderError(f"{self.path} is committed and can no longer change")
        with write_errors(self.path):
            if not self.path.is_dir():
                self.path.mkdir()
                fsync_directory(self.path.parent)


def called(run: Path) -> str:
    """How a run's folder is named on a command line: by name in ./runs, by path elsewhere."""
    return run.name if run.parent == Path("runs") else shlex.quote(str(run))


def round_name(index: int) -> str:
    """Zero-padded, so that the shell's globs sort."""
    return f"round-{index:03d}"


def first_open(run: Path) -> int:
    """The first round that is not committed."""
    index = 0
    while RoundDir(run / round_name(index)).committed:
        index += 1
    return index


def check_link(run: Path) -> None:
    """A copy that followed links has a folder in the link's place, and that is nobody's to delete.

    Raises: RunFolderError.
    """
    link = run / "adapter"
    if link.exists() and not link.is_symlink():
        raise RunFolderError(
            f"{link} is no link to the accepted round's adapter (a copy that followed links?): delete it, "
            "and `selfrefine cycle` makes the link"
        )


def point_adapter(run: Path, accepted_round: int) -> None:
    """Make RUN/adapter a relative link to the accepted round's adapter; none when that is the base."""
    link = run / "adapter"
    target = f"{round_name(accepted_round)}/adapter" if accepted_round else None
    if (str(link.readlink()) if link.is_symlink() else None) == target:
        return
    if target is None:
        link.unlink()
    else:
        temporary = run / ".adapter.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        failpoint("link.made")
        temporary.rename(link)
    failpoint("link.swapped")
    fsync_directory(run)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half made. Under the lock only: it may be somebody's work."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") and path.name.endswith((".tmp", ".building")):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        elif path.name.endswith(".part.idx") and not path.with_suffix("").exists():
            path.unlink()


@contextmanager
def gone_if_it_fails(place: Path) -> Iterator[None]:
    """An error or an interruption in the body leaves nothing of a directory that it was building. A killed
    process leaves it to the next one.
    """
    try:
        yield
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _build(place: Path, build: Callable[[Path], object]) -> None:
    """Fill an empty directory and make it durable: its files, their directories, itself."""
    if place.exists():
        shutil.rmtree(place)
    place.mkdir()
    failpoint("build.begun")
    build(place)
    failpoint("build.filled")
    sync_tree(place)
    failpoint("build.synced")


def sync_tree(top: Path) -> None:
    """fsync every file and directory under `top`, and `top`."""
    for folder, _, names in os.walk(top, topdown=False):
        for name in names:
            fsync_directory(Path(folder, name))  # the same call serves a file
        fsync_directory(Path(folder))
