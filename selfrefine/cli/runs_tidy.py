"""`selfrefine runs rm` and `runs gc`: delete runs, and what a run needs no more."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from selfrefine.cli import common, complete
from selfrefine.cli.common import JsonOption
from selfrefine.cli.guard import say

Runs = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="Names or folders of runs.", autocompletion=complete.runs),
]
SomeRuns = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN...]", help="Names or folders of runs. [all in ./runs]", autocompletion=complete.runs
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def rm(names: Runs, yes: Yes = False) -> None:
    """Delete run folders for good. Asks first on a terminal; elsewhere --yes is needed.

    Refused: a run that a process is writing to, a link, and a folder that is no run or holds other files.

    \b
      selfrefine runs rm sums
      selfrefine runs rm try-1 try-2 --yes
    """
    from selfrefine.errors import UsageError
    from selfrefine.query.tidy import check_removable, users
    from selfrefine.report.words import size
    from selfrefine.runfolder.collected import size_of
    from selfrefine.runfolder.run import locate
    from selfrefine.words import count

    found = list(dict.fromkeys(locate(common.RUNS_DIR, name) for name in names))
    for path in found:
        check_removable(path)
    for path in found:
        rounds = max(0, sum(1 for _ in path.glob("round-*/round.json")) - 1)
        say(f"{path}: {count(rounds, 'round')}, {size(size_of(path))}")
        for name, adapter in users(path).items():
            say(f"  the run {name} starts from its {adapter}")
    if not yes and not _agreed(f"delete {count(len(found), 'run')} for good? [y/N] "):
        raise UsageError("runs rm: nothing was deleted; give --yes to delete without being asked")
    for path in found:
        with _alone(path):
            check_removable_again(path)
            _delete(path)
        say(f"deleted {path}")


def check_removable_again(path: Path) -> None:
    """While the question was open, something else may have come in. Raises: RunFolderError."""
    from selfrefine.errors import RunFolderError

    if path.is_symlink() or not (path / "manifest.json").is_file():
        raise RunFolderError(f"{path} has changed meanwhile: nothing of it was deleted")


def _delete(path: Path) -> None:
    """First it is no run any more, in one rename: killed in between, no half run is left under its name."""
    from selfrefine.runfolder.jsonl import fsync_directory, write_errors

    gone = path.with_name(f".{path.name}.deleted")
    with write_errors(path, "nothing more was deleted"):
        if gone.exists():
            shutil.rmtree(gone)
        path.rename(gone)
        fsync_directory(path.parent)
        shutil.rmtree(gone)
        fsync_directory(path.parent)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """With the run's lock, also of a damaged run, which `Run.lock` refuses."""
    from selfrefine.errors import RunFolderError
    from selfrefine.runfolder.jsonl import write_errors
    from selfrefine.runfolder.locks import LOCK, holder

    with write_errors(path):
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = holder(path) or "another process"
            raise RunFolderError(f"{path} is locked by {who}: wait for it, or stop it") from None
        yield
    finally:
        os.close(fd)


def _agreed(question: str) -> bool:
    """No where nobody can be asked."""
    from selfrefine import streams

    stdin = streams.reading()
    if stdin is None or not stdin.isatty() or not sys.stderr.isatty():
        return False
    return _answer(question).strip().casefold() in ("y", "yes")


def _answer(question: str) -> str:
    from selfrefine import streams

    sys.stderr.write(question)
    sys.stderr.flush()
    stdin = streams.reading()
    return "" if stdin is None else stdin.readline()


def gc(names: SomeRuns = None, yes: Yes = False, json_: JsonOption = False) -> None:
    """Delete the adapters of rejected rounds and what killed processes left. Without --yes: only say what.

    Kept are all adapters that a round accepted or left undecided, and those from which another run in the
    same folder starts. collected.json in the run names what was deleted, so that `runs verify` knows it from
    damage and `cycle` goes on.

    \b
      selfrefine runs gc
      selfrefine runs gc demo --yes
    """
    from selfrefine.errors import RunFolderError
    from selfrefine.query.tidy import check_not_running, collectable
    from selfrefine.report.words import size
    from selfrefine.runfolder.collected import remove
    from selfrefine.runfolder.run import Run, locate, run_names

    given = [locate(common.RUNS_DIR, name) for name in names or ()]
    total = 0
    for path in given or [common.RUNS_DIR / name for name in run_names(common.RUNS_DIR)]:
        try:
            run = Run.open(path)
            check_not_running(path)
            found = collectable(run)
            if yes and found:
                with run.lock():
                    found = collectable(run)
                    remove(run.path, found)
        except RunFolderError as error:
            if given:
                raise
            say(f"{path.name} is left alone: {error}")
            continue
        for one in found:
            total += one.size
            told = {
                "run": path.name,
                "path": str(one.path),
                "bytes": one.size,
                "why": one.why,
                "deleted": yes,
            }
            if json_ or not common.on_terminal():
                common.print_json(told)
            else:
                say(f"{'deleted' if yes else 'would delete'} {one.path} ({size(one.size)}): {one.why}")
    done = "deleted" if yes else "nothing deleted yet; to delete"
    more = (
        ""
        if yes or not total
        else ": selfrefine runs gc" + "".join(f" {name}" for name in names or ()) + " --yes"
    )
    say(f"{done} {size(total)}{more}" if total else "nothing to collect")
