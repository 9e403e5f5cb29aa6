"""What `runs sql` and `runs diff` show a person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table as RichTable

from selfrefine.report.compared import compared_view
from selfrefine.report.guards import plain_table
from selfrefine.report.safe_text import text
from selfrefine.report.words import with_interval
from selfrefine.runfolder.summaries import SAID
from selfrefine.words import count

if TYPE_CHECKING:
    from selfrefine.query.columns import Table
    from selfrefine.query.differ import Diff, Difference

CELL_CHARACTERS = 400
_HASH = re.compile(r"[0-9a-f]{40,}")


def answer_view(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> RichTable:
    """A query's answer: numbers to the right, null as "–"."""
    table = plain_table()
    for at, name in enumerate(columns):
        numbers = all(isinstance(row[at], int | float) or row[at] is None for row in rows)
        # rich would read markup in a header that is a str.
        table.add_column(
            text(name, "bold", CELL_CHARACTERS), justify="right" if numbers else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(text(_cell(value), "", CELL_CHARACTERS) for value in row))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def schema_view(tables: Sequence[Table]) -> Group:
    """Tables with their columns, as `runs sql --schema` shows them."""
    parts: list[RenderableType] = []
    for table in tables:
        parts += [text("")] if parts else []
        parts.append(text(f"{table.name}: {table.about}", "bold"))
        columns = RichTable.grid(padding=(0, 2))
        columns.add_column(no_wrap=True)
        columns.add_column(no_wrap=True)
        columns.add_column(overflow="fold")
        for column in table.columns:
            columns.add_row(
                text(f"  {column.name}"), text(column.kind, "dim"), text(column.about, "", CELL_CHARACTERS)
            )
        parts.append(columns)
    return Group(*parts)


def diff_view(found: Diff) -> Group:
    """`runs diff`: a part for each kind of difference, one line where there is none."""
    parts: list[RenderableType] = [text(f"A: {found.a}"), text(f"B: {found.b}")]
    parts += _pairs("configuration", found.configuration)
    parts += _pairs("environment", found.environment)
    parts += _data(found)
    parts += _templates(found)
    parts += _results(found)
    return Group(*parts)


def _heading(title: str, differs: bool) -> list[RenderableType]:
    return [text(""), text(title, "bold") if differs else text(f"nothing differs in {title}", "dim")]


def _pairs(title: str, found: Sequence[Difference]) -> list[RenderableType]:
    if not found:
        return _heading(title, False)
    table = plain_table()
    for name in ("", "A", "B"):
        table.add_column(name, overflow="fold")
    for one in found:
        sides = [(one.a, one.a_origin), (one.b, one.b_origin)]
        table.add_row(
            text(one.key), *(text(_value(value, origin), "", CELL_CHARACTERS) for value, origin in sides)
        )
    return [*_heading(title, True), table]


def _value(value: Any, origin: str | None) -> str:
    if value is None and origin is None:
        return "–"
    shown = _HASH.sub(lambda found: f"{found[0][:12]}…", msgspec.json.encode(value).decode())
    return shown if origin in (None, "default") else f"{shown} ({origin})"


def _data(found: Diff) -> list[RenderableType]:
    parts = _heading("data", bool(found.data))
    for one in found.data:
        line = f"{one.split}: {count(one.a_tasks, 'task')} and {one.b_tasks:,}"
        told = {
            "only in A": one.only_a,
            "only in B": one.only_b,
            "with the same id and other content": one.changed,
            "held out here and trained on there": one.held_out_in_other,
        }
        line += "".join(f", {n:,} {words}" for words, n in told.items() if n)
        parts.append(text(f"  {line}{f': {one.note}' if one.note else ''}"))
    return parts


def _templates(found: Diff) -> list[RenderableType]:
    parts = _heading("prompts", bool(found.prompts))
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for lines in found.prompts.values():
        parts += [text(f"  {line}", styles.get(line[:1], "")) for line in lines]
    return parts


def _results(found: Diff) -> list[RenderableType]:
    table = plain_table()
    for name in ("round", "A gate", "A", "B gate", "B"):
        table.add_column(name, overflow="fold")
    for one in found.rounds:
        cells = [str(one.round)]
        for gate, outcome in ((one.a_gate, one.a_outcome), (one.b_gate, one.b_outcome)):
            cells += [
                with_interval(gate) if gate else "",
                "" if outcome is None else outcome if outcome == "start" else SAID[outcome],
            ]
        table.add_row(*map(text, cells))
    parts = (
        [*_heading("results", True), table]
        if found.rounds
        else [*_heading("results", True), text("  no round yet")]
    )
    if found.compared is None:
        return [*parts, text(f"not compared on test tasks: {found.not_compared}", newlines=True)]
    return [*parts, compared_view(found.compared)]
