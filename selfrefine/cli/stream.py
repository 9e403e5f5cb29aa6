"""A verb as a filter: rows in, unit by unit through a stage, rows out, in constant memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import UNSET, Struct
from msgspec.structs import replace

from selfrefine import records
from selfrefine.cli.common import on_terminal, show, table
from selfrefine.cli.guard import say
from selfrefine.errors import DataError
from selfrefine.records import Sample, Task
from selfrefine.runfolder.formats import check_output
from selfrefine.runfolder.jsonl import IdIndex, appears_whole, lines, open_input, open_output
from selfrefine.words import count

if TYPE_CHECKING:
    from selfrefine.cli.verb import Asked
    from selfrefine.report.console import Progress
    from selfrefine.stages.base import Stage
    from selfrefine.tasks.base import TaskOptions

T = TypeVar("T")


class NoRows(DataError):
    """An input without a single row."""


def read_samples(source: str) -> Iterator[Sample]:
    """Rows of a file or stdin; ids unique. Raises: NoRows, DataError (broken, a duplicate id)."""
    with open_input(source) as stream:
        yield from _decoded(stream, _name(source))


def read_lessons(source: str, say: Callable[[str], object]) -> Iterator[Sample]:
    """As `read_samples`; of tasks that were answered elsewhere, what they hold to learn (`tasks.lessons`)."""
    from selfrefine.tasks import located
    from selfrefine.tasks.base import TaskOptions
    from selfrefine.tasks.lessons import rows_of

    with open_input(source) as stream:
        rows, ahead = iter(stream), list[bytes]()
        for line in rows:
            ahead.append(line)
            if line.strip():
                break
        whole = chain(ahead, rows)
        if not ahead or not records.is_answered(ahead[-1]):
            yield from _decoded(whole, _name(source))
            return
        taught: Counter[str] = Counter()
        for where, task in located(source, TaskOptions(say=say), whole):
            for row in rows_of(task, where):
                role = "learn" if row.lesson is UNSET else row.lesson.role
                taught["answers" if role == "learn" else role] += 1
                yield row
        say(f"{_name(source)}: " + " · ".join(f"{n:,} {role}" for role, n in taught.items()))


def _decoded(stream: Iterable[bytes], name: str) -> Iterator[Sample]:
    index = IdIndex()
    empty = True
    for where, line in lines(stream, name):
        row = records.decode_sample(line, where)
        index.check(row.id, where)
        empty = False
        yield row
    if empty:
        raise NoRows(f"{name} is empty: it has no row")


def _name(source: str) -> str:
    return "stdin" if source == "-" else source


def read_tasks(source: str, options: TaskOptions | None = None) -> Iterator[Task]:
    """Tasks of any source, or of stdin. Raises: ConfigError, DataError."""
    from selfrefine.tasks import load
    from selfrefine.tasks.base import TaskOptions

    options = replace(options or TaskOptions(), say=say)
    with open_input("-") if source == "-" else nullcontext() as stream:
        yield from load(source, options, stream)


def filtered(
    asked: Asked,
    stage: Stage[T, Any],
    rows: Iterable[T],
    line: Callable[[Any, Progress], str] | None = None,
    total: int | None = None,
) -> Struct:
    """The stage's rows, written as soon as they are there; on a terminal, a readable view after the last.

    `line` makes the closing lines of the summary. Raises what the stage raises: an output file then does not
    appear.
    """
    from selfrefine.report.words import summary_line
    from selfrefine.stages.as_stream import as_stream, units_of

    check_output(asked.output or "")
    reporter, output = asked.reporter, asked.output or "/dev/null"
    stop = reporter.stop
    readable = output == "-" and not asked.as_json and on_terminal()
    shown: list[Sample] = []
    counted = _Counted(rows)
    stop.at_once = True  # no row is made yet
    units = units_of(stage, counted)  # before the bar, whose clock is that of the work
    reporter.check()
    # An interrupted filter leaves no file that appears when it is whole: no unit is worth finishing.
    stop.at_once = asked.output is None or appears_whole(output)
    if total is None and (lines := _lines_of(asked.source)):
        total = stage.expected(range(lines))  # type: ignore[arg-type]  # a number of rows is all it takes
    with reporter.stage(stage.title, total) as bar:

        def know_total() -> None:
            if counted.ended:
                bar.total = stage.expected(range(counted.rows))  # type: ignore[arg-type]

        def told() -> Iterator[list[T]]:
            for unit in units:
                stop.left = partial(_left, bar, stage.expected(unit), bar.done)
                yield unit

        know_total()
        with rows_to(output) as write:

            def emit(made: list[Sample]) -> None:
                if readable:
                    shown.extend(made)
                else:
                    write(b"".join(records.encode(row) + b"\n" for row in made))
                know_total()
                reporter.check()

            summary = as_stream(stage, told(), emit, reporter, bar)
            stop.at_once = False  # the file is about to appear
        closing = line(summary, bar) if line else summary_line(table(stage.title, summary))
        first, *more = closing.splitlines()
        bar.finish(first)
    for further in more:  # the first line stands there once the bar is gone
        reporter.say(further)
    if readable:
        view(shown)
    return summary


def way_on(output: str | None) -> str:
    """What becomes of the rows when a filter is interrupted."""
    if output is None:
        return "nothing was measured"
    if appears_whole(output):
        return "nothing was written: the output file appears when all rows are done"
    return "the rows written so far are complete"


def _left(bar: Progress, rows: int | None, before: int) -> str:
    """Of a unit of `rows`; `before` were done when it began."""
    return "" if rows is None else f" ({rows - bar.done + before:,} of {count(rows, 'row')} left)"


class _Counted:
    """Rows as they pass, counted: at the end of a stream its length is known before the work is done."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._iterator = iter(rows)
        self.rows, self.ended = 0, False

    def __iter__(self) -> Iterator[Any]:
        for row in self._iterator:
            self.rows += 1
            yield row
        self.ended = True


def _lines_of(source: str) -> int | None:
    """How many rows a JSON Lines file has, give or take its blank lines; None for anything else."""
    path = Path(source)
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))


@contextmanager
def rows_to(output: str) -> Iterator[Callable[[bytes], object]]:
    """`open_output`; rows that go to a terminal (--json) carry no character that could act there."""
    from selfrefine.report.safe_text import safe_json

    with open_output(output) as write:
        if output == "-" and on_terminal():
            yield lambda data: write(safe_json(data.decode()).encode())
        else:
            yield write


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
