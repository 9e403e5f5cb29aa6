"""`selfrefine recipes`: the methods that ship, as files worth reading."""

from __future__ import annotations

from typing import Annotated

import typer

from selfrefine.cli import common, complete
from selfrefine.cli.common import JsonOption
from selfrefine.cli.help import App

app = App(help="List and show the shipped methods.")


@app.command("ls")
def ls(json_: JsonOption = False) -> None:
    """List the recipes for `cycle --recipe NAME`.

    \b
      selfrefine recipes ls
    """
    from selfrefine import recipes
    from selfrefine.runfolder.jsonl import write_stdout

    found = [recipes.read(name) for name in recipes.names()]
    if json_ or not common.on_terminal():
        for one in found:
            common.print_json({"name": one.name, "about": one.about, "settings": one.table})
        return
    width = max(len(one.name) for one in found)
    write_stdout("".join(f"{one.name:{width}}  {one.about}\n" for one in found).encode())


@app.command("show")
def show(
    name: Annotated[
        str, typer.Argument(help="Name of a recipe, or a file of your own.", autocompletion=complete.recipes)
    ],
) -> None:
    """Print a recipe: its paper, how it differs from the paper, and its settings.

    \b
      selfrefine recipes show star > mine.toml
      selfrefine cycle --config demo --recipe ./mine.toml --run mine
    """
    from selfrefine import recipes
    from selfrefine.report.safe_text import safe_text
    from selfrefine.runfolder.jsonl import write_stdout

    text = recipes.read(name).text
    write_stdout((safe_text(text, newlines=True) if common.on_terminal() else text).encode())
