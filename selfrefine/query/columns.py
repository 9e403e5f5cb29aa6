"""What a table of a run is: columns, and how its rows are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from selfrefine.runfolder.run import Run

Row = tuple[Any, ...]


class Column(Struct, frozen=True):
    name: str
    kind: str
    """SQLite's: TEXT, INTEGER, REAL."""
    about: str = ""


class Table(Struct, frozen=True, kw_only=True):
    name: str
    about: str
    columns: tuple[Column, ...]
    rows: Callable[[Run, Sequence[str]], Iterator[Row]]
    """The values of the columns that are asked for, in that order; without any, one null a row."""


def chosen(values: Mapping[str, Callable[..., Any]], wanted: Sequence[str]) -> list[Callable[..., Any]]:
    """Of the columns that are asked for, in that order; without any, one that gives null."""
    return [values[name] for name in wanted] or [lambda *_: None]
