"""What `runs sql`, `runs diff`, `runs rm` and `runs gc` show a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table as RichTable

from selfrefine.report.guards import plain_table
from selfrefine.report.safe_text import text

if TYPE_CHECKING:
    from selfrefine.query.tables import Table

CELL_CHARACTERS = 400


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
