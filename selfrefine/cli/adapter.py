"""`selfrefine adapter`: what else can be done with an adapter."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from selfrefine.cli import common
from selfrefine.cli.common import ModelOption
from selfrefine.cli.help import App

app = App(help="Work with LoRA adapters.")


@app.command("merge")
def merge(
    adapter: Annotated[str, typer.Argument(help="The adapter's folder, such as runs/demo/adapter.")],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder of the plain model to write.")],
    model: ModelOption = None,
) -> None:
    """Write base + adapter as one plain model that needs no peft.

    \b
      selfrefine adapter merge runs/demo/adapter -o my-model
    """
    from selfrefine.errors import RunFolderError
    from selfrefine.runfolder.round import RoundDir

    out = Path(output)
    if out.exists():
        raise RunFolderError(f"{out} already exists: choose another -o, or delete it")
    resolved = common.settings(None, None, common.flags(model=model, adapter=adapter))
    engine = common.load(resolved.config.model, Path(adapter), trust=False)
    RoundDir(out.resolve().parent).put_directory(out.name, engine.save_merged)
    sys.stderr.write(f"merged: {out}; use it with --model {out}\n")
