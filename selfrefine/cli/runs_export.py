"""`selfrefine runs export` and `runs env`: a run's answers as a table, its packages as constraints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfrefine.cli import common
from selfrefine.cli.guard import say, stoppable
from selfrefine.cli.help import OUTPUT
from selfrefine.cli.runs_rows import RoundOption, RunArgument, StageOption


def export(
    name: RunArgument,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The file: .parquet, .csv or .jsonl, the last two also .gz, .zst.",
        ),
    ],
    round_: RoundOption = None,
    stage: StageOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that exists.", rich_help_panel=OUTPUT)
    ] = False,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="CSV: leave texts that a spreadsheet would run as formulas as they are.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
) -> None:
    """Write a run's answers as one flat table: a row an answer, tags and rewards as columns.

    Every answer once, as in `runs rows`. In CSV an empty field is null and "" is an empty text; a text that
    begins with = + - @ and is no number gets an apostrophe in front: spreadsheets would run it as a formula.
    Parquet needs pip install 'selfrefine[files]'.

    \b
      selfrefine runs export demo -o rows.parquet
      selfrefine runs export demo --round 2 -o rows.csv.gz
    """
    from selfrefine.errors import UsageError
    from selfrefine.query.export import ENDINGS, write
    from selfrefine.query.rows import files
    from selfrefine.runfolder.formats import bare
    from selfrefine.runfolder.run import Run, locate
    from selfrefine.words import count

    kind = Path(bare(output)).suffix
    if kind not in ENDINGS or (kind == ".parquet" and bare(output) != output):
        raise UsageError(
            f"-o {output}: name a file that ends in {', '.join(ENDINGS)}; .csv and .jsonl also .gz, .zst"
        )
    target = Path(output)
    if target.exists() and not force:
        raise UsageError(f"-o {output} exists already: choose another name, or give --force")
    if target.is_dir():
        raise UsageError(f"-o {output} is a folder: name a file")
    run = Run.open(locate(common.RUNS_DIR, name))
    with stoppable("export") as stop:
        stop.at_once, stop.way_on = True, "nothing was written"
        rows, columns, left = write(files(run, round_, stage or ()), output, exact)
    more = (
        f"; {left:,} more tags and rewards are left out: `selfrefine runs rows {name}` has all"
        if left
        else ""
    )
    say(f"{output}: {count(rows, 'row')}, {count(columns, 'column')}{more}")


def env(name: RunArgument) -> None:
    """Print the packages that a run recorded as constraints for pip.

    These are the packages that compute; what they need themselves is not recorded. A version that is on no
    index (a local build such as +cpu, a checkout) stands as a comment, with what pip can be given instead.

    \b
      selfrefine runs env demo > constraints.txt
    """
    from selfrefine.query.env import constraints
    from selfrefine.report.safe_text import safe_text
    from selfrefine.runfolder.jsonl import write_stdout
    from selfrefine.runfolder.run import Run, locate

    run = Run.open(locate(common.RUNS_DIR, name))
    # Also in a file: a version is somebody's text, and a line break in it would be another constraint.
    write_stdout("".join(f"{safe_text(line)}\n" for line in constraints(run.manifest)).encode())
