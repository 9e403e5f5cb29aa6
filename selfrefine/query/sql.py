"""SQL on a run: SQLite in memory, filled with the tables and columns that the query names.

Which those are SQLite itself says: the query is prepared against empty tables, and its authorizer is told
the columns that will be read. So counting 100,000 answers reads no answer, and no file is kept for it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from msgspec import Struct

from selfrefine.errors import UsageError
from selfrefine.query.columns import Table
from selfrefine.query.tables import tables
from selfrefine.runfolder.run import Run
from selfrefine.words import near

LARGEST_VALUE_BYTES = 1 << 28
_STEPS_BETWEEN_SIGNALS = 20_000
"""Of SQLite's machine: a few milliseconds."""
_ALLOWED = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_REFUSED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})
_ONLY_READS = "only select is possible here: a run is read, never changed"


class Answer(Struct, frozen=True):
    """Column names, each once, and the rows as they come."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def asked(run: Run, query: str) -> Iterator[Answer]:
    """The answer to a query, to be read inside the block.

    Raises: UsageError (the query), DataError (a row of the run), KeyboardInterrupt.
    """
    if not query.strip(" \t\r\n;"):
        raise UsageError("runs sql: the query is empty; an example: select count(*) from samples")
    known = tables(run)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for table in known.values():
            columns = ", ".join(f'"{column.name}" {column.kind}' for column in table.columns)
            connection.execute(f'create table "{table.name}" ({columns})')
        regexp = _Regexp()
        connection.create_function("regexp", 2, regexp, deterministic=True)
        with _in_words(known, regexp):
            wanted = _named(connection, query, known)
            for name, columns_ in wanted.items():
                _fill(connection, run, known[name], columns_)
            _lock_down(connection)
            cursor = connection.execute(query)
            if cursor.description is None:
                raise UsageError(f"runs sql: {_ONLY_READS}")
            names = _unique([column[0] for column in cursor.description])
        # A reader that goes away leaves them half read: closed after their database, they print a traceback.
        with closing(_rows(cursor, known, regexp)) as rows:
            yield Answer(names, rows)
    finally:
        connection.close()


def _rows(
    cursor: sqlite3.Cursor, known: dict[str, Table], regexp: _Regexp
) -> Generator[tuple[Any, ...], None, None]:
    with _in_words(known, regexp):
        yield from cursor


def _named(connection: sqlite3.Connection, query: str, known: dict[str, Table]) -> dict[str, list[str]]:
    """Tables to their columns that the query reads, in the tables' order of columns.

    The authorizer knows what `*` stands for, and is not told of the columns that `using` and `natural` join
    by. The former stand in the query's text, so every name counts that stands there, too.
    """
    read: dict[str, set[str]] = {}

    def note(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ and first:
            read.setdefault(first, set()).update([second] if second else [])
        return _authorised(action, first, second)

    connection.set_authorizer(note)
    try:
        connection.execute(f"explain {query}").close()
    finally:
        connection.set_authorizer(None)
    words = {word.casefold() for word in re.findall(r"\w+", query)}
    whole = "natural" in words
    return {
        name: [
            column.name
            for column in table.columns
            if whole or column.name in read.get(name, ()) or column.name in words
        ]
        for name, table in known.items()
        if name in read or name in words
    }


def _fill(connection: sqlite3.Connection, run: Run, table: Table, columns: Sequence[str]) -> None:
    into = ", ".join(f'"{name}"' for name in columns or [table.columns[0].name])
    marks = ", ".join("?" * max(1, len(columns)))
    connection.execute("begin")
    connection.executemany(f'insert into "{table.name}" ({into}) values ({marks})', table.rows(run, columns))
    connection.execute("commit")


def _lock_down(connection: sqlite3.Connection) -> None:
    """From here on nothing can be changed, attached or loaded; and Ctrl-C is heard."""
    connection.execute("pragma query_only = on")
    connection.execute("pragma temp_store = memory")
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE_BYTES)
    connection.set_authorizer(_authorised)
    # While SQLite works, Python runs no signal handler, unless it is called back.
    connection.set_progress_handler(lambda: 0, _STEPS_BETWEEN_SIGNALS)


def _authorised(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action not in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and second in _REFUSED_FUNCTIONS):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


class _Regexp:
    """`text regexp 'pattern'`."""

    def __init__(self) -> None:
        self.broken: str | None = None
        """What is wrong with the pattern: SQLite says only that something was raised."""

    def __call__(self, pattern: object, text: object) -> bool | None:
        if pattern is None or text is None:
            return None
        try:
            compiled = re.compile(str(pattern))
        except (re.error, RecursionError, OverflowError) as error:
            self.broken = f"{str(pattern)[:80]!r} is not a regular expression: {error}"
            raise
        return compiled.search(str(text)) is not None


@contextmanager
def _in_words(known: dict[str, Table], regexp: _Regexp) -> Iterator[None]:
    """SQLite's errors as sentences. Raises: UsageError; KeyboardInterrupt where the query was stopped."""
    try:
        yield
    except sqlite3.Error as error:
        said = str(error)
        if "raised exception" in said and regexp.broken:
            raise UsageError(f"runs sql: {regexp.broken}") from None
        # The handler of Ctrl-C raised within a callback, and SQLite swallowed it.
        if said == "interrupted" or "raised exception" in said:
            raise KeyboardInterrupt from None
        raise UsageError(f"runs sql: {_said(said, known)}") from None
    except UnicodeEncodeError:
        raise UsageError("runs sql: the query is not UTF-8 text") from None


def _said(said: str, known: dict[str, Table]) -> str:
    if (
        "not authorized" in said
        or "authorization denied" in said
        or "prohibited" in said
        or "readonly" in said
    ):
        return _ONLY_READS
    if "one statement at a time" in said:
        return "one query at a time"
    if found := re.fullmatch(r"no such table: (?:\w+\.)?(.*)", said, re.DOTALL):
        meant = near(found[1], known)
        hint = f"; did you mean {meant}?" if meant else ""
        return f"no table {found[1][:80]!r}{hint} (tables: {', '.join(known)})"
    if found := re.fullmatch(r"no such column: (?:\w+\.)?(.*)", said, re.DOTALL):
        names = {column.name for table in known.values() for column in table.columns}
        meant = near(found[1], names)
        hint = f"; did you mean {meant}?" if meant else ""
        return f"no column {found[1][:80]!r}{hint} (see them with --schema; a text stands in 'single quotes')"
    if 'near "explain"' in said.casefold():
        return "explain is not possible here; write the query without it"
    if "syntax error" in said or "incomplete input" in said or "unrecognized token" in said:
        return f"not a query: {said}"
    return said


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """As keys of an object: the second `count(*)` is `count(*)_2`."""
    found: dict[str, None] = {}
    for name in names:
        number, one = 1, name
        while one in found:
            number += 1
            one = f"{name}_{number}"
        found[one] = None
    return tuple(found)
