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
    recipes,
    reward,
    runs,
    select,
    show,
    tasks,
)
from selfrefine.runfolder.jsonl import write_stdout

app = typer.Typer(
    name="selfrefine",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
        bool, typer.Option("--debug", help="Show a bug's traceback here, not in a file.")
    ] = False,
) -> None:
    """Let a language model improve itself, and keep an improvement only when it is measured.

    Five verbs, one loop; each verb is a filter on JSON Lines:

    \b
      selfrefine tasks gym:chain_sum -n 64 | selfrefine generate -n 8 |
          selfrefine reward -r gym | selfrefine finetune -o adapter

    `selfrefine cycle --config demo --run demo` runs them in rounds, measures each round on held-out tasks
    and keeps or rolls back.
    """


app.command("tasks")(tasks.command)
for verb in (generate, critique, reward, select, finetune, evaluate):
    app.command(verb.VERB.name)(verb.VERB.command())
app.command("show")(show.command)
app.command("gate")(gate.command)
app.command("cycle")(cycle.command)
app.command("compare")(compare.command)
app.command("doctor")(doctor.command)
app.add_typer(runs.app, name="runs")
app.add_typer(recipes.app, name="recipes")
app.add_typer(kinds.rewards, name="rewards")
app.add_typer(kinds.objectives, name="objectives")
app.add_typer(adapter.app, name="adapter")
