"""A verb as a filter: rows in, unit by unit through a step, rows out, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

from selfrefine import records
from selfrefine.cli.common import ConsoleWatch, on_terminal, show
from selfrefine.errors import DataError, Interrupted
from selfrefine.records import Sample, Task
from selfrefine.runfolder.jsonl import IdIndex, lines, open_input, open_output

T = TypeVar("T")


class NoRows(DataError):
    """An input without a single row."""


def read_samples(source: str) -> Iterator[Sample]:
    """Rows of a file or stdin; ids unique. Raises: NoRows, DataError (broken, a duplicate id)."""
    index = IdIndex()
    name = "stdin" if source == "-" else source
    empty = True
    with open_input(source) as stream:
        for where, line in lines(stream, name):
            row = records.decode_sample(line, where)
            index.check(row.id, where)
            empty = False
            yield row
    if empty:
        raise NoRows(f"{name} is empty: there is no row in it")


def filter_units(
    units: Iterable[Sequence[T]],
    work: Callable[[Sequence[T]], list[Sample]],
    output: str,
    watch: ConsoleWatch,
    *,
    as_json: bool,
    require: Callable[[], object] = lambda: None,
) -> None:
    """Write each unit's rows as soon as they are there; on a terminal, a readable view after the last.

    The first unit is read before the output is opened, so that bad input leaves nothing behind. `require` is
    called after the last and may raise: then an output file does not appear.
    """
    units = iter(units)
    first = next(units, None)
    readable = output == "-" and not as_json and on_terminal()
    shown: list[Sample] = []
    watch.stop.way_on = "the rows written so far are complete"
    with rows_to(output) as write:
        for unit in chain([] if first is None else [first], units):
            rows = work(unit)
            if readable:
                shown += rows
            else:
                write(b"".join(records.encode(row) + b"\n" for row in rows))
            try:
                watch.check()
            except Interrupted:
                if output == "-":
                    raise
                break_with(watch)
        require()
    if readable:
        view(shown)


@contextmanager
def rows_to(output: str) -> Iterator[Callable[[bytes], object]]:
    """`open_output`; rows that go to a terminal (--json) carry no character that could act there."""
    from selfrefine.report.safe_text import safe_json

    with open_output(output) as write:
        if output == "-" and on_terminal():
            yield lambda data: write(safe_json(data.decode()).encode())
        else:
            yield write


def break_with(watch: ConsoleWatch) -> None:
    """A file appears whole or not at all: an interrupted filter leaves none, and says so."""
    watch.stop.way_on = "nothing was written: the output file is made when all rows are done"
    watch.check()


def view(samples: Iterable[Sample]) -> None:
    """Samples for a person, on stdout."""
    from selfrefine.report.tables import samples_view

    show(samples_view(samples))


def write_tasks(tasks: Iterable[Task], output: str) -> int:
    """Task rows as JSON Lines, in blocks; returns how many."""
    count = 0
    block: list[bytes] = []
    with rows_to(output) as write:
        for task in tasks:
            block.append(records.encode(task) + b"\n")
            count += 1
            if len(block) == 256:
                write(b"".join(block))
                block = []
        if block:
            write(b"".join(block))
    return count
