"""Files and streams of lines: JSON Lines, and plain text with one prompt per line.

Lines end at \\n and nowhere else: str.splitlines would also cut at U+2028, which may stand in a JSON string.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from selfrefine.errors import DataError
from selfrefine.records import Task
from selfrefine.runfolder.jsonl import lines, open_input
from selfrefine.tasks.base import Located, SourceKind, TaskOptions, ask
from selfrefine.tasks.rows import read_row, shape_of


def read_jsonl(name: str, options: TaskOptions) -> Iterator[Located]:
    """Tasks of a JSON Lines file. Blank lines are skipped."""
    with opened(name) as rows:
        yield from _rows(rows, name, options)


def read_stream(name: str, options: TaskOptions) -> Iterator[Located]:
    """Tasks of JSON Lines on standard input."""
    assert options.stream is not None
    yield from _rows(_some(options.stream, name), name, options)


def read_text(name: str, options: TaskOptions) -> Iterator[Located]:
    """Tasks of a text file, one prompt per line. Blank lines are skipped."""
    with opened(name) as rows:
        for where, line in rows:
            if text := decoded(line, where).strip():
                yield where, Task(id="", prompt=ask(text, options))


@contextmanager
def opened(name: str) -> Iterator[Iterator[tuple[str, bytes]]]:
    """(where, stripped line) of every line of a file. Raises: DataError when it cannot be opened or read."""
    with open_input(name) as file:
        yield _some(file, name)


def decoded(line: bytes, where: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error.reason} at byte {error.start + 1})") from None


def _rows(rows: Iterator[tuple[str, bytes]], name: str, options: TaskOptions) -> Iterator[Located]:
    first = True
    for where, line in rows:
        if not line:
            continue
        yield where, read_row(line, where, options)
        if first and (shape := shape_of(line, options)):
            options.say(f"{name}: {shape}")
        first = False


def _some(stream: Iterable[bytes], name: str) -> Iterator[tuple[str, bytes]]:
    where = ""
    for where, line in lines(stream, name, blank=True):
        yield where, line
    if not where:
        raise DataError(f"{name} is empty: it has no tasks")


STREAM = SourceKind(
    name="-",
    spelling="-",
    about="JSON Lines from a pipe",
    example="cat my.jsonl | selfrefine tasks -",
    read=read_stream,
    takes=("prompt_field", "reference_field"),
)
JSONL = SourceKind(
    name="jsonl",
    spelling="FILE.jsonl",
    about="JSON Lines or Parquet, also .gz and .zst: prompt, messages, question and answer, ShareGPT, "
    "alpaca, preferences; other columns with --prompt-field",
    example="selfrefine tasks my.jsonl --prompt-field text --reference-field label",
    read=read_jsonl,
    takes=("prompt_field", "reference_field"),
)
TEXT = SourceKind(
    name="text",
    spelling="FILE.txt",
    about="plain text, one prompt per line",
    example="selfrefine tasks prompts.txt",
    read=read_text,
)
