"""One file per command, thin: flags to configuration, configuration to a step, rows out, a summary line."""

from __future__ import annotations

from typing import Annotated

import typer

from selfrefine import __version__
from selfrefine.cli import (
    adapter,
    compare,
    critique,
    cycle,
    doctor,
    evaluate,
    finetune,
    gate,
    generate,
    kinds,
    model,
    recipes,
    reflect,
    report,
    reward,
    runs,
    select,
    show,
    tasks,
)
from selfrefine.cli.help import CONTEXT, App
from selfrefine.runfolder.jsonl import write_stdout

app = App(name="selfrefine", pretty_exceptions_enable=False, context_settings=CONTEXT)
LOOP, RUNS, NAMES = "The loop", "Runs and adapters", "Lists and checks"


def _version(wanted: bool) -> None:
    if wanted:
        write_stdout(f"selfrefine {__version__}\n".encode())
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print a bug's traceback instead of writing it to a file.")
    ] = False,
) -> None:
    """Improve a language model on its own answers, and keep only what is measured to be better.

    The verbs of the loop are filters on JSON Lines:

    \b
      selfrefine tasks gym:chain_sum -n 64 | selfrefine generate -n 8 |
          selfrefine reward -r gym | selfrefine finetune -o adapter

    `selfrefine cycle --config demo --run demo` runs them in rounds. Each round is measured on held-out tasks,
    then kept or rolled back.
    """


app.command("tasks", rich_help_panel=LOOP)(tasks.command)
for verb in (generate, critique, reward, select, finetune, evaluate, reflect):
    app.command(verb.VERB.name, rich_help_panel=LOOP)(verb.VERB.command())
app.command("gate", rich_help_panel=LOOP)(gate.command)
app.command("cycle", rich_help_panel=LOOP)(cycle.command)
app.add_typer(runs.app, name="runs", rich_help_panel=RUNS)
app.command("show", rich_help_panel=RUNS)(show.command)
app.command("compare", rich_help_panel=RUNS)(compare.command)
app.command("report", rich_help_panel=RUNS)(report.command)
app.add_typer(adapter.app, name="adapter", rich_help_panel=RUNS)
app.add_typer(model.app, name="model", rich_help_panel=RUNS)
app.add_typer(recipes.app, name="recipes", rich_help_panel=NAMES)
app.add_typer(kinds.rewards, name="rewards", rich_help_panel=NAMES)
app.add_typer(kinds.objectives, name="objectives", rich_help_panel=NAMES)
app.command("doctor", rich_help_panel=NAMES)(doctor.command)
