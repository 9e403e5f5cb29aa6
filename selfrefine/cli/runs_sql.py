"""`selfrefine runs sql`: a query on a run's tables."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfrefine.cli import common
from selfrefine.cli.common import JsonOption
from selfrefine.cli.guard import say
from selfrefine.cli.help import OUTPUT
from selfrefine.cli.runs_rows import RunArgument

if TYPE_CHECKING:
    from selfrefine.query.sql import Answer

ON_A_SCREEN = 1_000
"""Rows of a table: its columns are as wide as the widest cell, so all of them are held."""


def sql(
    name: RunArgument,
    query: Annotated[str | None, typer.Argument(help="A query in SQLite's SQL.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the tables and their columns.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.", rich_help_panel=OUTPUT)] = False,
    json_: JsonOption = False,
) -> None:
    """Ask a run in SQL: tables rounds, samples, rewards, critiques, votes, steps, events, tasks.

    The run is only read. SQLite holds the tables and columns that the query names, in memory; the rows are
    those of committed rounds and of the one in progress. Tags are columns: tag_op. Prints a table on a
    terminal, JSON Lines elsewhere.

    \b
      selfrefine runs sql demo "select stage, count(*) from samples group by 1"
      selfrefine runs sql demo "select round, outcome, gate from rounds" --csv
      selfrefine runs sql demo --schema
    """
    from selfrefine.errors import UsageError
    from selfrefine.query.sql import asked
    from selfrefine.runfolder.run import Run, locate

    if json_ and csv:
        raise UsageError("--json or --csv, not both")
    if (query is None) is not schema:
        raise UsageError('runs sql: give a query, such as "select count(*) from samples", or --schema')
    run = Run.open(locate(common.RUNS_DIR, name))
    if query is None:
        _schema(run, json_ or not common.on_terminal())
        return
    with asked(run, query) as answer:
        if csv:
            _as_csv(answer)
        elif json_ or not common.on_terminal():
            _as_json(answer)
        else:
            _as_table(answer)


def _schema(run: Any, as_json: bool) -> None:
    from selfrefine.query.tables import tables
    from selfrefine.report.query import schema_view

    found = tables(run)
    if not as_json:
        common.show(schema_view(list(found.values())))
        return
    for table in found.values():
        for column in table.columns:
            common.print_json(
                {"table": table.name, "column": column.name, "type": column.kind, "about": column.about}
            )


def _as_json(answer: Answer) -> None:
    _write(common.json_line(dict(zip(answer.columns, map(_json, row), strict=True))) for row in answer.rows)


def _as_csv(answer: Answer) -> None:
    from selfrefine.query.flat import csv_line
    from selfrefine.report.safe_text import safe_text

    def lines() -> Iterator[str]:
        yield csv_line(answer.columns)
        for row in answer.rows:
            yield csv_line([_json(value) for value in row])

    on_screen = common.on_terminal()
    _write(safe_text(line, newlines=True) if on_screen else line for line in lines())


def _write(lines: Iterator[str]) -> None:
    """In pieces of some thousand lines; on a terminal as they come."""
    from selfrefine.runfolder.jsonl import write_stdout

    at_once = 1 if common.on_terminal() else 2_000
    while some := list(islice(lines, at_once)):
        write_stdout("".join(some).encode(errors="replace"))


def _json(value: Any) -> Any:
    """What JSON has not: bytes are written as hexadecimal digits, as SQLite's x'…'."""
    return value.hex() if isinstance(value, bytes) else value


def _as_table(answer: Answer) -> None:
    from selfrefine.report.query import answer_view

    rows = list(islice(answer.rows, ON_A_SCREEN + 1))
    common.show(answer_view(answer.columns, [list(map(_json, row)) for row in rows[:ON_A_SCREEN]]))
    if len(rows) > ON_A_SCREEN:
        say(f"the first {ON_A_SCREEN:,} rows; for all of them use --csv or --json")
