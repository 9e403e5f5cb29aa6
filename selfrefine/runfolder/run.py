"""A run's folder: its name, its lock, what was asked (manifest), its frozen tasks, its rounds.

runs/<name>/  manifest.json events.jsonl tasks/ prompts/ round-000/ … final/ adapter -> round-00N/adapter
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from selfrefine import records
from selfrefine.errors import DataError, RunFolderError
from selfrefine.records import Task, prompt_key
from selfrefine.runfolder import whole
from selfrefine.runfolder.events import Events
from selfrefine.runfolder.failpoints import failpoint
from selfrefine.runfolder.jsonl import (
    atomic_write,
    fsync_directory,
    lines,
    read_json,
    sha256_file,
    write_errors,
)
from selfrefine.runfolder.locks import LOCK, holder, only_one
from selfrefine.runfolder.round import (
    RoundDir,
    called,
    first_open,
    gone_if_it_fails,
    point_adapter,
    round_name,
    sweep,
    sync_tree,
)
from selfrefine.runfolder.summaries import FinalSummary, RoundSummary, RunManifest
from selfrefine.words import count

MANIFEST = "manifest.json"
PLAN = "plan.json"
REFLECTION = "reflection"
"""The folder in a run for what `selfrefine reflect RUN` finds from outside of its rounds."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


# --- names -----------------------------------------------------------------------------------------


def valid_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def new_path(runs_dir: Path, name: str) -> Path:
    """Where a new run of that name goes. Raises: RunFolderError for a name that could leave `runs_dir`."""
    if not valid_name(name):
        raise RunFolderError(
            f"{name[:120]!r} is not a valid run name: use up to 100 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    return runs_dir / name


def locate(runs_dir: Path, name_or_path: str) -> Path:
    """The folder of an existing run: a path if it has a separator, else a name in `runs_dir`, else a folder.

    Raises: RunFolderError when there is none, it is no run, or the name leads out of `runs_dir`.
    """
    path = Path(name_or_path)
    if os.sep not in name_or_path:
        named = runs_dir / name_or_path
        if valid_name(name_or_path) and _is_run(named):
            if named.resolve().parent != runs_dir.resolve():
                raise RunFolderError(f"{named} is a link out of {runs_dir}; give its path instead")
            return named
        if not _is_run(path):
            new_path(runs_dir, name_or_path)
            if named.is_dir():
                path = named
    if _is_run(path):
        return path
    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises for a name that is too long)
        raise RunFolderError(f"{path} is not a run folder: it has no {MANIFEST}")
    if os.sep in name_or_path:
        raise RunFolderError(f"no run at {name_or_path[:200]}")
    others = [one for one in run_names(runs_dir) if _alike(path.name, one)]
    near = difflib.get_close_matches(path.name, others, n=3, cutoff=0.7)
    hint = f"did you mean {' or '.join(near)}?" if near else "`selfrefine runs ls` lists them"
    raise RunFolderError(f"no run {name_or_path[:120]!r} in {runs_dir}; {hint}")


def run_folders(runs_dir: Path) -> list[str]:
    """Names of the folders that are runs or were, sorted."""
    if not runs_dir.is_dir():
        return []
    return sorted(p.name for p in runs_dir.iterdir() if valid_name(p.name) and p.is_dir())


def run_names(runs_dir: Path) -> list[str]:
    """Names of the runs in a folder, sorted."""
    return [name for name in run_folders(runs_dir) if _is_run(runs_dir / name)]


def _alike(name: str, other: str) -> bool:
    """Not of one series: who asks for run-7 does not mean run-9."""
    series = [re.sub(r"\d+", "0", one) for one in (name, other)]
    numbers = [[int(digits) for digits in re.findall(r"\d+", one)] for one in (name, other)]
    return series[0] != series[1] or numbers[0] == numbers[1]


def _is_run(path: Path) -> bool:
    try:
        return (path / MANIFEST).is_file()
    except OSError:  # a name longer than the file system takes
        return False


def new_name(runs_dir: Path) -> str:
    """The first free name of run-001, run-002, …"""
    number = 1
    while (runs_dir / f"run-{number:03d}").exists():
        number += 1
    return f"run-{number:03d}"


# --- frozen inputs ---------------------------------------------------------------------------------


def overlaps(splits: Mapping[str, Sequence[Task]]) -> list[str]:
    """A sentence for every task that stands in an earlier split too, by id or by `prompt_key`."""
    found = []
    first: dict[tuple[str, str], tuple[str, int]] = {}
    for split, tasks in splits.items():
        for row, task in enumerate(tasks, 1):
            keys = ("id", task.id), ("prompt", prompt_key(task.prompt))
            places = [(key[0], *first.setdefault(key, (split, row))) for key in keys]
            same = [f"the {what} of row {at} of {other}" for what, other, at in places if other != split]
            if same:
                found.append(f"row {row} of {split} ({task.id!r}) has {same[0]}")
    return found


def check_disjoint(splits: Mapping[str, Sequence[Task]]) -> None:
    """Raises: DataError naming the first task that stands in two splits."""
    if shared := overlaps(splits):
        tasks = count(len(shared), "task")
        raise DataError(f"the splits share {tasks}: {shared[0]}; remove such tasks from one of them")


def task_files(splits: Mapping[str, Sequence[Task]]) -> dict[str, bytes]:
    """The frozen files' bytes by split name."""
    return {name: b"".join(records.encode(t) + b"\n" for t in tasks) for name, tasks in splits.items()}


def sha256_texts(files: Mapping[str, bytes | str]) -> dict[str, str]:
    """As the manifest's `tasks` and `prompts` have it."""
    data = {name: v.encode() if isinstance(v, str) else v for name, v in files.items()}
    return {name: hashlib.sha256(v).hexdigest() for name, v in data.items()}


def check_free(path: Path) -> None:
    """Raises: RunFolderError where a run cannot be made because something is there."""
    if path.exists() or path.is_symlink():
        if (who := holder(path)) is not None:
            raise RunFolderError(f"{path} is being made or run by {who}: wait for it, or choose another name")
        way = f"continue it with `selfrefine cycle --run {called(path)}`, or " if _is_run(path) else ""
        raise RunFolderError(f"{path} already exists: {way}choose another name")


# --- the run ---------------------------------------------------------------------------------------


class Run:
    """An existing run. Reading needs no lock; whatever writes does so inside `with run.lock():`."""

    def __init__(self, path: Path, manifest: RunManifest) -> None:
        self.path = path
        self.manifest = manifest
        self.events = Events(path / whole.EVENTS)
        self.prompts_dir = path / "prompts"
        self.final = RoundDir(path / "final")

    @classmethod
    def create(
        cls,
        path: Path,
        manifest: RunManifest,
        splits: Mapping[str, Sequence[Task]],
        prompts: Mapping[str, str],
    ) -> Run:
        """Make the folder whole: built under a hidden name, fsynced, renamed once.

        `prompts` is file name to text. The manifest's `tasks` and `prompts` are filled in with sha256.
        Raises: RunFolderError (exists, bad name, disk full), DataError (splits that overlap).
        """
        new_path(path.parent, path.name)
        check_disjoint(splits)
        files = task_files(splits)
        manifest = msgspec.structs.replace(manifest, tasks=sha256_texts(files), prompts=sha256_texts(prompts))
        with write_errors(path.parent, "no run was made"):
            check_free(path)
            with only_one(path.parent):
                if path.exists():  # made a moment ago, and locked in the next
                    time.sleep(0.2)
                    check_free(path)
                building = path.with_name(f".{path.name}.building")
                if building.exists():
                    shutil.rmtree(building)
                with gone_if_it_fails(building):
                    for folder in (building, building / "tasks", building / "prompts"):
                        folder.mkdir()
                    failpoint("create.begun")
                    for name, data in files.items():
                        (building / "tasks" / f"{name}.jsonl").write_bytes(data)
                    for name, text in prompts.items():
                        new_path(building, name)
                        (building / "prompts" / name).write_text(text, encoding="utf-8", newline="")
                    failpoint("create.filled")
                    asked = msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"
                    (building / MANIFEST).write_bytes(asked)
                    sync_tree(building)
                    failpoint("create.before-rename")
                    building.rename(path)
                failpoint("create.renamed")
                fsync_directory(path.parent)
        return cls(path, manifest)

    @classmethod
    def open(cls, path: Path) -> Run:
        """Raises: RunFolderError when it is no run, damaged, or of another schema version."""
        file = path / MANIFEST
        try:
            data = file.read_bytes()
            version = msgspec.json.decode(data, type=dict[str, Any]).get("schema_version")
            if version != records.SCHEMA_VERSION:
                raise RunFolderError(
                    f"{file} has schema version {version}; this selfrefine reads {records.SCHEMA_VERSION}"
                )
            return cls(path, msgspec.json.decode(data, type=RunManifest))
        except OSError as error:
            raise RunFolderError(f"{path} is not a run folder: {MANIFEST}: {error.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RunFolderError(f"{file} is damaged: {error}") from None

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def called(self) -> str:
        """How it is named on a command line given here."""
        return called(self.path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one writer; mend what a killed one left. The kernel lets go of it when this process dies.

        Raises: RunFolderError naming the process that holds it, or where nothing may be written (`whole`).
        """
        with write_errors(self.path):
            fd = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who = holder(self.path) or "another process"
                raise RunFolderError(f"{self.path} is locked by {who}: wait for it, or stop it") from None
            self.check_whole()
            with write_errors(self.path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                self._mend()
            yield
            os.ftruncate(fd, 0)  # a finished run is the same bytes whoever finished it
        finally:
            os.close(fd)

    def check_whole(self) -> None:
        """Asked by whatever writes, before a model is loaded: what is made next follows from all rounds.

        Raises: RunFolderError: what is lost or cannot be read, and the way out.
        """
        whole.refuse(self.path)
        _ = self.accepted_adapter, self.current_adapter

    def locked(self) -> bool:
        """Is some process writing to it now?"""
        return holder(self.path) is not None

    def _mend(self) -> None:
        for folder in (self.path, self.round(self.next_round()).path, self.final.path):
            sweep(folder)
        point_adapter(self.path, self.accepted_round)

    def tasks(self, split: str) -> list[Task]:
        """A frozen split. Raises: RunFolderError when it is missing or was changed."""
        path = self.path / "tasks" / f"{split}.jsonl"
        if not path.is_file():
            raise RunFolderError(f"{path} is missing")
        if sha256_file(path) != self.manifest.tasks.get(split):
            raise RunFolderError(f"{path} was changed after the run was made: its tasks are frozen")
        with path.open("rb") as stream:
            return [records.decode_task(line, where) for where, line in lines(stream, str(path))]

    def count_tasks(self, split: str) -> int:
        """How many a split has; they are not decoded. Raises: RunFolderError when it is missing."""
        path = self.path / "tasks" / f"{split}.jsonl"
        if not path.is_file():
            raise RunFolderError(f"{path} is missing")
        return path.read_bytes().count(b"\n")

    def round(self, index: int) -> RoundDir:
        return RoundDir(self.path / round_name(index))

    def rounds(self) -> list[RoundDir]:
        """The committed rounds, in order from 0."""
        return [self.round(k) for k in range(self.next_round())]

    def next_round(self) -> int:
        """The first round that is not committed."""
        return first_open(self.path)

    def summary(self, index: int) -> RoundSummary:
        """Raises: RunFolderError when that round is not committed."""
        return self.round(index).summary()

    def plan(self) -> dict[str, dict[str, int]]:
        """Token budgets that memory made smaller than the constants, by engine and kind of work.

        Empty for a run that kept its plan; one that did not is outside byte identity. Raises: RunFolderError.
        """
        return read_json(self.path / PLAN, dict[str, dict[str, int]]) or {}

    def keep_plan(self, plan: dict[str, dict[str, int]]) -> None:
        """Write it, so that the same command again begins with budgets that fit. Raises: RunFolderError."""
        atomic_write(self.path / PLAN, msgspec.json.encode(plan, order="deterministic") + b"\n")

    @property
    def final_file(self) -> Path:
        """Written last in `final/`: with it the run has ended (until it is extended)."""
        return self.final.path / "summary.json"

    def final_summary(self) -> FinalSummary | None:
        """The last final measurement, or None. Raises: RunFolderError when it is damaged."""
        return read_json(self.final_file, FinalSummary)

    def test_reads(self) -> int:
        """How often the test split was read: at round 0 and at each end."""
        places = ("round-000/test.jsonl", "final*/test.jsonl")
        return sum(1 for place in places for _ in self.path.glob(place))

    @property
    def accepted_round(self) -> int:
        """The round whose adapter is the accepted policy; 0 is the base."""
        committed = self.next_round()
        return self.summary(committed - 1).accepted_round if committed else 0

    @property
    def accepted_adapter(self) -> Path | None:
        """None when the accepted policy is the base. Raises: RunFolderError when its folder is gone."""
        return self._adapter(self.accepted_round, "it is the accepted policy's adapter")

    @property
    def current_adapter(self) -> Path | None:
        """What the next round samples from and may continue: an undecided candidate, else the accepted one.

        Raises: RunFolderError when its folder is gone.
        """
        committed = self.next_round()
        undecided = self.summary(committed - 1).undecided_round if committed else None
        if undecided is None:
            return self.accepted_adapter
        return self._adapter(undecided, "training continues from this undecided candidate")

    def _adapter(self, index: int, why: str) -> Path | None:
        adapter = self.round(index).adapter
        if index and not adapter.is_dir():
            raise RunFolderError(
                f"{adapter} is missing: {why}; put it back from a copy, or delete {round_name(index)}, all "
                "later rounds and final*"
            )
        return adapter if index else None
