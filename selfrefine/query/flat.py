"""A row of a run as a row of a table, and tables as CSV: what `runs export` writes.

CSV has no null, so a null is an empty field and an empty text is `""`: readers that tell the two apart
(DuckDB, PostgreSQL) get both back. The csv module of Python 3.11 cannot write that.

A spreadsheet runs a field that begins with = + - @ as a formula, and a model can write one. Such a text gets
an apostrophe in front, unless it is a number; a tab or a carriage return in front of it is no way around.
Numbers, Parquet and JSON Lines are not changed, and `exact=True` leaves the texts as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from selfrefine.errors import DataError
from selfrefine.query.rows import RowFile, Seen, length, seen
from selfrefine.records import UNDECODABLE, why_undecodable

FIXED: dict[str, str] = {
    "place": "string",
    "round": "int64",
    "stage": "string",
    "id": "string",
    "task_id": "string",
    "index": "int64",
    "parent_id": "string",
    "prompt": "string",
    "text": "string",
    "reference": "string",
    "finish_reason": "string",
    "reward": "double",
    "error": "string",
    "critique_verdict": "string",
    "critique_score": "double",
    "critique_text": "string",
    "critiques": "int64",
    "tokens": "int64",
    "prompt_tokens": "int64",
    "policy": "string",
    "engine": "string",
    "seed": "int64",
}
"""Columns that every export has, with their types in Parquet. The critique is the last one."""
MOST_NAMES = 500
"""Tags, and rewards, with a column of their own."""


class _Tags(Struct, frozen=True, gc=False):
    tags: dict[str, str] = {}


class _Name(Struct, frozen=True, gc=False):
    name: str


class _Names(Struct, frozen=True, gc=False):
    """Of a row only what names columns: nothing else of it is read."""

    task: _Tags
    rewards: tuple[_Name, ...] = ()


_names = msgspec.json.Decoder(_Names).decode
_DANGEROUS = re.compile(r"\s*[=+\-@]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def columns(files: Iterable[RowFile]) -> tuple[dict[str, str], list[str], list[str], int]:
    """Every column with its type; the tags and the rewards that are among them; how many of both have none.

    Reads all rows once.

    Raises: DataError for a row that cannot be read.
    """
    tags: dict[str, None] = {}
    rewards: dict[str, None] = {}
    for file in files:
        for where, line in file.lines():
            try:
                row = _names(line)
            except UNDECODABLE as error:
                raise DataError(f"{where}: {why_undecodable(line, error)}") from None
            tags.update(dict.fromkeys(row.task.tags))
            rewards.update(dict.fromkeys(one.name for one in row.rewards))
    names, scores = sorted(tags)[:MOST_NAMES], sorted(rewards)[:MOST_NAMES]
    own = {f"tag.{name}": "string" for name in names} | {f"reward.{name}": "double" for name in scores}
    return FIXED | own, names, scores, len(tags) + len(rewards) - len(names) - len(scores)


def flat(row: Seen, file: RowFile, tags: Sequence[str], rewards: Sequence[str]) -> list[Any]:
    """The values of `columns`, in their order; null where the row has none."""
    last = row.critiques[-1] if row.critiques else None
    scores = {one.name: one.value for one in row.rewards}
    return [
        file.place,
        file.round,
        file.stage,
        row.id,
        row.task.id,
        row.index,
        row.parent_id,
        row.prompt,
        row.text,
        next(iter(row.task.references), None),
        row.finish_reason,
        row.reward,
        row.error,
        last.verdict if last else None,
        last.score if last else None,
        last.text if last else None,
        len(row.critiques),
        row.tokens,
        length(row.prompt_token_ids),
        row.policy,
        row.engine,
        row.seed,
        *(row.task.tags.get(name) for name in tags),
        *(scores.get(name) for name in rewards),
    ]


def flat_rows(files: Iterable[RowFile], tags: Sequence[str], rewards: Sequence[str]) -> Iterator[list[Any]]:
    for file in files:
        for where, line in file.lines():
            yield flat(seen(line, where), file, tags, rewards)


def csv_line(values: Sequence[Any], exact: bool = False) -> str:
    """A line of CSV (RFC 4180, but with a bare newline at its end)."""
    return ",".join([_field(value, exact) for value in values]) + "\n"


def _field(value: Any, exact: bool) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return json.dumps(value)
    text: str = value
    if not exact and _DANGEROUS.match(text) and not _NUMBER.fullmatch(text):
        text = f"'{text}"
    if not text or text[0] == " " or text[-1] == " " or _QUOTED.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


_QUOTED = re.compile('[",\r\n]')
