"""`selfrefine model`: where a model lies on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from selfrefine.cli.guard import say
from selfrefine.cli.help import App

app = App(help="Find models on this machine.")


@app.command("path")
def path(
    model: Annotated[
        str, typer.Argument(help="smollm2, a folder, or a hub id such as org/name.")
    ] = "smollm2",
) -> None:
    """Print the folder of a model. The embedded one is converted, one of the hub downloaded, where needed.

    \b
      selfrefine model path smollm2
    """
    from selfrefine.engines.load import LOCAL, resolve
    from selfrefine.runfolder.jsonl import write_stdout

    folder, _ = resolve(model.removeprefix("local:"), say, kinds=[LOCAL])  # a script has no folder
    write_stdout(f"{folder.resolve()}\n".encode())
