"""What can be deleted: a whole run, or of a run what nothing needs any more. Decides; deletes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from selfrefine.errors import RunFolderError
from selfrefine.runfolder.collected import COLLECTED, Collectable, scratch, size_of
from selfrefine.runfolder.locks import LOCK, holder
from selfrefine.runfolder.run import MANIFEST, PLAN, REFLECTION, Run, run_names
from selfrefine.runfolder.whole import EVENTS

_OWN = re.compile(
    rf"round-\d{{3,}}|final(-after-\d{{3,}})?|tasks|prompts|adapter|{REFLECTION}|\..*\.(tmp|building)|.*\.html"
)
_FILES = frozenset({MANIFEST, EVENTS, PLAN, COLLECTED, LOCK})


def check_removable(path: Path) -> None:
    """Raises: RunFolderError where `path` is not a run folder and nothing but that, or is written to now.

    A damaged run may be removed, so its rounds are not looked at.
    """
    if path.is_symlink():
        raise RunFolderError(
            f"{path} is a link to {path.readlink()}, and links are not followed here: give that folder"
        )
    if not path.name or path.name in (".", ".."):
        raise RunFolderError(f"{path}: give the run's name, or the path that ends in it")
    if not _says_it_is_a_run(path):
        raise RunFolderError(f"{path} is not a run folder: its {MANIFEST} was not written by selfrefine")
    if foreign := sorted(one.name for one in path.iterdir() if not _own(one)):
        shown = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3:,} more" if len(foreign) > 3 else "")
        raise RunFolderError(f"{path} holds what is no part of a run: {shown}\nmove it elsewhere first")
    check_not_running(path)


def check_not_running(path: Path) -> None:
    """Raises: RunFolderError naming the process that has the run's lock."""
    if (who := holder(path)) is not None:
        raise RunFolderError(f"{path} is locked by {who}: wait for it, or stop it")


def _own(path: Path) -> bool:
    return path.name in _FILES or _OWN.fullmatch(path.name) is not None


def _says_it_is_a_run(path: Path) -> bool:
    """Other programs have a manifest.json, too. One of ours that is damaged has the folders of a run."""
    with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        told = msgspec.json.decode((path / MANIFEST).read_bytes(), type=dict[str, Any])
        return {"schema_version", "config", "origins", "seeds"} <= told.keys()
    return (path / "tasks").is_dir() and (path / "prompts").is_dir()


def users(run: Path) -> dict[str, str]:
    """Runs beside this one that start from an adapter in it: name to that adapter's path in the run."""
    found = {}
    for name in run_names(run.parent):
        other = run.parent / name
        if other.resolve() == run.resolve():
            continue
        with suppress(RunFolderError):
            start = Run.open(other).manifest.config.get("adapter")
            if not isinstance(start, str) or not start:
                continue
            # As it was given: from where the command was, which mostly is the folder that holds runs/.
            for path in (Path(start), run.parent.parent / start):
                with suppress(ValueError):
                    found[name] = path.resolve().relative_to(run.resolve()).as_posix()
    return found


def collectable(run: Run) -> list[Collectable]:
    """Adapters of rejected rounds that no run starts from, and what killed processes left.

    Not the accepted and not the undecided candidates; not those of earlier accepted rounds, which are the
    adapter's history; nothing of the round in progress. Raises: RunFolderError: a summary cannot be read.
    """
    found = list(_rejected(run))
    folders = [run.path, *(folder.path for folder in run.rounds())]
    for path in (one for folder in folders for one in scratch(folder)):
        found.append(Collectable(path=path, why="left by a killed process", size=size_of(path)))
    return found


def _rejected(run: Run) -> Iterator[Collectable]:
    needed = {run.accepted_round}
    started = set(users(run.path).values())
    for folder in run.rounds():
        summary = folder.summary()
        if summary.undecided_round is not None:
            needed.add(summary.undecided_round)
        needed.add(summary.accepted_round)
    for folder in run.rounds():
        summary, name = folder.summary(), f"{folder.path.name}/adapter"
        rejected = summary.gate is not None and summary.gate.outcome == "reject"
        if not rejected or folder.index in needed or any(one.startswith(name) for one in started):
            continue
        if not folder.adapter.is_dir() or folder.adapter.is_symlink():
            continue
        files = {
            f"{folder.path.name}/{file}": digest
            for file, digest in summary.artifacts.items()
            if file.startswith("adapter/")
        }
        why = f"adapter that round {folder.index} rejected"
        yield Collectable(path=folder.adapter, why=why, files=files, size=size_of(folder.adapter))
