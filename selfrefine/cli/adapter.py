"""`selfrefine adapter`: what else can be done with an adapter."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from selfrefine.cli import checks, common
from selfrefine.cli.common import ModelOption
from selfrefine.cli.guard import say
from selfrefine.cli.help import App

app = App(help="Work with LoRA adapters.")


class Dtype(StrEnum):
    """Precisions of a merged model."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@app.command("merge")
def merge(
    adapter: Annotated[str, typer.Argument(help="The adapter's folder, such as runs/demo/adapter.")],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder of the plain model to write.")],
    model: ModelOption = None,
    dtype: Annotated[
        Dtype, typer.Option("--dtype", help="Precision of the written weights; they are merged in float32.")
    ] = Dtype.FLOAT32,
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
    checks.models(resolved.config)
    engine = common.load(resolved.config.model, Path(adapter), trust=False)
    rounded = None if dtype is Dtype.FLOAT32 else dtype.value
    RoundDir(out.resolve().parent).put_directory(out.name, lambda folder: engine.save_merged(folder, rounded))
    say(f"merged: {out}; use it with --model {out}")
