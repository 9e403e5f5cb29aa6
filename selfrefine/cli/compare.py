"""`selfrefine compare`: finished runs side by side, paired by test task."""

from __future__ import annotations

from typing import Annotated

import typer

from selfrefine.cli import common, complete
from selfrefine.cli.common import JsonOption


def command(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Finished runs; the others are compared with the first.", autocompletion=complete.runs
        ),
    ],
    json_: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
) -> None:
    """Compare finished runs on their test tasks, paired by task: difference, interval and p-value.

    Each run is compared with its own start, and every other run with the first. Prints one JSON object when
    stdout is not a terminal.

    \b
      selfrefine compare placebo mine
      selfrefine compare placebo mine --markdown > table.md
    """
    from selfrefine.errors import UsageError
    from selfrefine.gating.versus import versus
    from selfrefine.report.compared import compared_markdown, compared_view
    from selfrefine.runfolder.jsonl import write_stdout
    from selfrefine.runfolder.run import Run, locate

    if json_ and markdown:
        raise UsageError("--json or --markdown, not both")
    found = versus([Run.open(locate(common.RUNS_DIR, name)) for name in runs])
    if markdown:
        write_stdout(compared_markdown(found).encode())
    elif json_ or not common.on_terminal():
        common.print_json(found)
    else:
        common.show(compared_view(found))
