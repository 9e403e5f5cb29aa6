"""`selfrefine adapter`: what else can be done with an adapter."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

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

    The model card and the lineage of an adapter that a run kept go with it.

    \b
      selfrefine adapter merge runs/demo/adapter -o my-model
    """
    from selfrefine.runfolder.round import RoundDir

    out = _free(output)
    resolved = common.settings(None, None, common.flags(model=model, adapter=adapter))
    checks.models(resolved.config)
    engine = common.load(resolved.config.model, Path(adapter), trust=False)
    rounded = None if dtype is Dtype.FLOAT32 else dtype.value
    about = _about(Path(adapter), "merged")

    def build(folder: Path) -> None:
        engine.save_merged(folder, rounded)
        for name, data in about.items():
            (folder / name).write_bytes(data)

    RoundDir(out.resolve().parent).put_directory(out.name, build)
    say(f"merged: {out}; use it with --model {out}")


@app.command("export")
def export(
    adapter: Annotated[str, typer.Argument(help="The adapter's folder, such as runs/demo/adapter.")],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder to write.")],
) -> None:
    """Copy an adapter that a run kept, to publish it: its model card gets the test figures.

    The card in the run folder was written before the test tasks were measured, and does not change.

    \b
      selfrefine adapter export runs/demo/adapter -o my-adapter
    """
    import shutil

    from selfrefine.compute import adapter_files
    from selfrefine.errors import ConfigError
    from selfrefine.lineage.chain import LINEAGE, digests
    from selfrefine.runfolder.round import RoundDir

    out, folder = _free(output), Path(adapter)
    adapter_files.check(folder)
    about = _about(folder, "adapter")
    if not about:
        raise ConfigError(
            f"{folder} has no {LINEAGE}: only the adapter of a round that was kept has one; copy the folder "
            "as it is"
        )

    def build(place: Path) -> None:
        for name in digests(folder):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, place / name)
        for name, data in about.items():
            (place / name).write_bytes(data)

    RoundDir(out.resolve().parent).put_directory(out.name, build)
    say(f"exported: {out}; its model card is {out / 'README.md'}")


def _free(output: str) -> Path:
    """Where a new folder goes. Raises: RunFolderError: something is there."""
    from selfrefine.errors import RunFolderError

    if (out := Path(output)).exists():
        raise RunFolderError(f"{out} already exists: choose another -o, or delete it")
    return out


def _about(adapter: Path, kind: Literal["adapter", "merged"]) -> dict[str, bytes]:
    """Lineage and card of a copy, with the test figures where the run has them; nothing of an adapter that no
    run kept."""
    from selfrefine.lineage import card, chain
    from selfrefine.lineage.tested import of_adapter

    if (told := chain.read(adapter)) is None:
        return {}
    text = card.render(told, of_adapter(adapter, told), kind)
    return {chain.LINEAGE: chain.encode(told), chain.CARD: text.encode()}
