"""Files and streams of lines: JSON Lines, and plain text with a prompt a line.

Lines end at \\n and nowhere else: str.splitlines would also cut at U+2028, which may stand in a JSON string.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from selfrefine.errors import DataError
from selfrefine.records import Task
from selfrefine.tasks.base import Located, TaskOptions, ask, only
from selfrefine.tasks.rows import read_row

BOM = b"\xef\xbb\xbf"


def read_jsonl(name: str, options: TaskOptions) -> Iterator[Located]:
    """Tasks of a JSON Lines file. Blank lines are skipped."""
    with opened(name) as lines:
        yield from _rows(lines, name, options)


def read_stream(stream: BinaryIO, options: TaskOptions) -> Iterator[Located]:
    """Tasks of JSON Lines on standard input."""
    yield from _rows(_numbered(stream, "stdin"), "stdin", options)


def read_text(name: str, options: TaskOptions) -> Iterator[Located]:
    """Tasks of a text file, a prompt a line. Blank lines are skipped."""
    only(name, options)
    with opened(name) as lines:
        for where, line in lines:
            if text := decoded(line, where).strip():
                yield where, Task(id="", prompt=ask(text, options))


@contextmanager
def opened(name: str) -> Iterator[Iterator[tuple[str, bytes]]]:
    """(where, line without its end) of a file. Raises: DataError when it cannot be opened or read."""
    try:
        with Path(name).open("rb") as file:
            yield _numbered(file, name)
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}") from None


def decoded(line: bytes, where: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error.reason} at byte {error.start + 1})") from None


def _rows(lines: Iterator[tuple[str, bytes]], name: str, options: TaskOptions) -> Iterator[Located]:
    only(name, options, "prompt_field", "reference_field")
    for where, line in lines:
        if where == f"{name}:1" and line.lstrip().startswith(b"["):
            raise DataError(f"{where}: a JSON array, not JSON Lines; `jq -c '.[]'` makes lines of it")
        if line.strip():
            yield where, read_row(line, where, options)


def _numbered(stream: BinaryIO, name: str) -> Iterator[tuple[str, bytes]]:
    number = 0
    for number, line in enumerate(stream, 1):
        if number == 1:
            line = line.removeprefix(BOM)
        yield f"{name}:{number}", line.rstrip(b"\r\n")
    if number == 0:
        raise DataError(f"{name} is empty: there are no tasks in it")
