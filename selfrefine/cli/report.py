"""`selfrefine report`: runs as one page for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfrefine.cli import common, complete
from selfrefine.cli.common import JsonOption
from selfrefine.cli.guard import say

if TYPE_CHECKING:
    from selfrefine.runfolder.run import Run

EVERY_S = 5
"""Between two looks at a run that goes on."""


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
        bool, typer.Option("--watch", help="Write the page again while a run goes on; it follows by itself.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Write a run as one HTML page: result, decisions, charts, samples, settings. It needs no network.

    Any run will do, also one that goes on, failed or is damaged: the page says what is missing. With several
    runs, they are compared on their test tasks, paired by task. Charts need `pip install 'selfrefine[report]'`;
    without it their figures stand in tables.

    \b
      selfrefine report demo --open
      selfrefine report placebo mine -o compared.html
      selfrefine report demo --watch
    """
    from selfrefine.runfolder.run import Run, locate

    found = [Run.open(locate(common.RUNS_DIR, name)) for name in runs]
    path = _writable(output, found)
    told = _write(found, path, 0)
    if open_:
        import webbrowser

        if not webbrowser.open(path.resolve().as_uri()):
            say(f"no browser was found; open {path.resolve().as_uri()}")
    if json_ or not common.on_terminal():
        common.print_json(told)


def _write(runs: list[Run], path: Path, watching: int) -> dict[str, object]:
    from selfrefine.report.page import build
    from selfrefine.report.words import size
    from selfrefine.runfolder.jsonl import atomic_write

    data = build.page(runs, watching).encode()
    atomic_write(path, data)
    say(f"wrote {path}: {size(len(data))}")
    return {"path": str(path), "bytes": len(data), "runs": [run.name for run in runs]}


def _writable(output: str, runs: list[Run]) -> Path:
    """Where the page goes. Raises: UsageError for a place within a round, which is not to change."""
    from selfrefine.errors import UsageError

    path = Path(output)
    if path.is_dir():
        raise UsageError(f"-o {output} is a folder: name a file in it, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise UsageError(f"-o {output}: there is no folder {path.parent}; make it first")
    where = path.parent.resolve()
    for run in runs:
        own = run.path.resolve()
        if where != own and own in where.parents:
            raise UsageError(
                f"-o {output} is within the run {run.name}, whose rounds do not change: choose another folder"
            )
    return path
