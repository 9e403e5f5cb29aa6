"""`selfrefine runs diff`: what differs between two runs."""

from __future__ import annotations

from typing import Annotated

import typer

from selfrefine.cli import common, complete
from selfrefine.cli.common import JsonOption

A = Annotated[str, typer.Argument(metavar="A", help="A run's name or folder.", autocompletion=complete.runs)]
B = Annotated[str, typer.Argument(metavar="B", help="Another one.", autocompletion=complete.runs)]


def diff(a: A, b: B, json_: JsonOption = False) -> None:
    """Show what differs between two runs: configuration, environment, data, prompts, results.

    Settings are shown with who decided them. Finished runs are compared on their test tasks, paired by task,
    as `selfrefine compare` does; others say why not.

    \b
      selfrefine runs diff sums sums-grpo
      selfrefine runs diff sums sums-grpo --json
    """
    from selfrefine.query.differ import differ
    from selfrefine.runfolder.run import Run, locate

    found = differ(*(Run.open(locate(common.RUNS_DIR, name)) for name in (a, b)))
    if json_ or not common.on_terminal():
        common.print_json(found)
        return
    from selfrefine.report.query import diff_view

    common.show(diff_view(found))
