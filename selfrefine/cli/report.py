"""`selfrefine report`: runs as one page for a browser."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfrefine.cli import common, complete
from selfrefine.cli.common import JsonOption
from selfrefine.cli.guard import say

if TYPE_CHECKING:
    from selfrefine.cli.common import ConsoleReporter
    from selfrefine.runfolder.run import Run

EVERY_S = 5
"""Between two looks at a run that goes on, and between two of the page at itself."""


def command(
    runs: Annotated[
        list[str],
        typer.Argument(help="Runs, by name or folder; several are compared.", autocompletion=complete.runs),
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the page to this file. [report.html]",
            show_default=False,
        ),
    ] = "report.html",
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Write the page again while the run goes on; an open page follows."),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Write a run as one HTML page: result, decisions, charts, samples, settings. It needs no network.

    Any run will do, also one that goes on, was stopped or is damaged: the page says what is missing. Several
    runs are compared on their test tasks, paired by task. Charts need `pip install 'selfrefine[report]'`;
    without it their figures stand in tables.

    \b
      selfrefine report demo --open
      selfrefine report placebo mine -o compared.html
      selfrefine report demo --watch
    """
    from selfrefine.report.page.svg import available
    from selfrefine.runfolder.run import Run, locate

    found = [Run.open(locate(common.RUNS_DIR, name)) for name in runs]
    path = _writable(output, found)
    if not available():
        say("charts are left out, their figures stand in tables: pip install 'selfrefine[report]'")
    if watch:
        with common.reporting("report") as reporter:
            reporter.stop.at_once = True  # what is under way is made again by the same command
            reporter.stop.way_on = "the page is as it was last written"
            told = _follow(found, path, open_, reporter)
    else:
        told = _write(found, path, 0)
        _show(path, open_)
    if json_ or not common.on_terminal():
        common.print_json(told)


def _follow(runs: list[Run], path: Path, open_: bool, reporter: ConsoleReporter) -> dict[str, Any]:
    """Write at once, and again whenever a stage has begun or ended, until no process writes to the runs."""
    from selfrefine.errors import Interrupted

    seen: tuple[Any, ...] = ()
    going = any(run.locked() for run in runs)
    if not going:
        say(f"nothing writes to {', '.join(run.name for run in runs)} now: the page is written once")
    try:
        while going:
            if (now := _marks(runs)) != seen:
                _write(runs, path, EVERY_S)
                _show(path, open_ and not seen)
                seen = now
            until = time.monotonic() + EVERY_S
            while time.monotonic() < until:
                reporter.check()
                time.sleep(0.1)
            going = any(run.locked() for run in runs)
    except Interrupted:
        _write(runs, path, 0)  # or an open page would go on looking
        raise
    told = _write(runs, path, 0)
    _show(path, open_ and not seen)
    return told


def _marks(runs: Sequence[Run]) -> tuple[Any, ...]:
    """Changes with every event of the runs."""
    paths = [run.events.path for run in runs]
    return tuple((path.stat().st_size if path.is_file() else 0) for path in paths)


def _show(path: Path, wanted: bool) -> None:
    if not wanted:
        return
    import webbrowser

    address = path.resolve().as_uri()
    if not webbrowser.open(address):
        say(f"no browser was found; open {address}")


def _write(runs: list[Run], path: Path, watching: int) -> dict[str, Any]:
    from selfrefine.report.page import build
    from selfrefine.report.words import size
    from selfrefine.runfolder.jsonl import atomic_write
    from selfrefine.words import count

    data = build.page(runs, watching).encode()
    atomic_write(path, data)
    say(f"wrote {path}: {size(len(data))}, {count(len(runs), 'run')}")
    return {"path": str(path), "bytes": len(data), "runs": [run.name for run in runs]}


def _writable(output: str, runs: list[Run]) -> Path:
    """Where the page goes. Raises: UsageError for a place that a page cannot or must not be written to."""
    from selfrefine.errors import UsageError

    path = Path(output)
    if output in ("-", "/dev/stdout"):
        raise UsageError("-o names a file for the browser, such as report.html; stdout gets a line of JSON")
    if path.is_dir():
        raise UsageError(f"-o {output} is a folder: name a file in it, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise UsageError(f"-o {output}: there is no folder {path.parent}; make it first")
    for run in runs:
        if run.path.resolve() in (place := path.resolve()).parents:
            raise UsageError(
                f"-o {output} is within the run {run.name}, which holds what it made and nothing else: "
                f"choose another folder, such as {place.name} here"
            )
    return path
