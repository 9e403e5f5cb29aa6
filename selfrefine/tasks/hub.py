"""Datasets of the Hugging Face hub, streamed: hub:openai/gsm8k --set config=main --set split=test"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from selfrefine.errors import ConfigError, DataError
from selfrefine.tasks.base import Located, SourceKind, TaskOptions
from selfrefine.tasks.rows import read_row

TIMEOUT_S = 5.0
Name = str | int | float | bool
"""`--set revision=12` is read as a number."""


class HubSettings(Struct, frozen=True):
    config: Annotated[Name | None, Meta(description="Configuration of the dataset.")] = None
    split: Annotated[Name, Meta(description="Split of the dataset.")] = "train"
    revision: Annotated[Name | None, Meta(description="Branch, tag or commit.")] = None


def read(name: str, options: TaskOptions) -> Iterator[Located]:
    """Rows in the shapes of `tasks.rows`.

    Raises: ConfigError where `datasets` is not installed; DataError where the dataset cannot be had.
    """
    where = f"hub:{name}"
    for number, row in enumerate(_rows(name, where, options), 1):
        row_where = f"{where}:{number}"
        try:
            line = msgspec.json.encode(row)
        except (TypeError, UnicodeEncodeError, RecursionError) as error:
            raise DataError(f"{row_where}: cannot be written as JSON: {error}") from None
        yield row_where, read_row(line, row_where, options)


def _rows(name: str, where: str, options: TaskOptions) -> Iterator[dict[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise ConfigError(f"{where}: needs the `datasets` package: pip install 'selfrefine[hub]'") from None
    own: HubSettings = options.settings
    config, revision = (None if value is None else str(value) for value in (own.config, own.revision))
    _reachable(name, where)
    try:
        yield from load_dataset(name, config, split=str(own.split), revision=revision, streaming=True)
    except Exception as error:
        raise DataError(f"{where}: {_first_line(error)}") from error


def _reachable(name: str, where: str) -> None:
    """`datasets` retries for minutes where there is no network: ask the hub once, briefly, first."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return
    try:
        HfApi().dataset_info(name, timeout=TIMEOUT_S)
    except Exception as error:
        raise DataError(
            f"{where}: cannot be loaded from the hub ({type(error).__name__}: {_first_line(error)})\n"
            "Without a network, use a file or a source that needs none, such as gym:chain_sum."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


HUB = SourceKind(
    name="hub",
    spelling="hub:NAME",
    about="a Hugging Face dataset (needs the extra `selfrefine[hub]` and a network)",
    example="selfrefine tasks hub:openai/gsm8k --set config=main --set split=test",
    read=read,
    takes=("prompt_field", "reference_field"),
    settings=HubSettings,
)
