"""The command line as a user meets it, in this process: the app, its exit code, and both streams.

A subprocess costs seconds (torch); the same code path costs milliseconds here. `tests/pipelines` is real.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfrefine.cli import app
from selfrefine.cli.guard import guarded
from selfrefine.errors import Interrupted
from selfrefine.stages.progress import Silent


@dataclass(frozen=True)
class Result:
    code: int
    out: bytes
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.split(b"\n") if line]


class Impatient(Silent):
    """Interrupts at the nth look, as a signal would."""

    def __init__(self, after: int) -> None:
        self.left = after

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted("test", 130)


class _Kept(io.BytesIO):
    """Outlives the text layer above it, which closes what it wraps."""

    def close(self) -> None:
        pass


class _Screen(io.TextIOWrapper):
    """What believes to be a terminal."""

    def isatty(self) -> bool:
        return True


@contextmanager
def streams(stdin: bytes | None, terminal: bool) -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    before = sys.stdin, sys.stdout, sys.stderr
    out, err = _Kept(), _Kept()
    kind = _Screen if terminal else io.TextIOWrapper
    sys.stdin = _Screen(io.BytesIO()) if stdin is None else io.TextIOWrapper(io.BytesIO(stdin))
    sys.stdout = kind(out, encoding="utf-8", write_through=True)
    sys.stderr = kind(err, encoding="utf-8", write_through=True)
    try:
        yield out, err
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def selfrefine(*args: str | Path, stdin: bytes | None = b"", cwd: Path, terminal: bool = False) -> Result:
    """`selfrefine ARGS < stdin` in `cwd`; stdin None is a keyboard, `terminal` a screen for both outputs."""
    words = [str(word) for word in args]
    argv, folder = sys.argv, Path.cwd()
    os.chdir(cwd)
    sys.argv = ["selfrefine", *words]
    try:
        with streams(stdin, terminal) as (out, err):
            code = guarded(lambda: app(words))
        return Result(code, out.getvalue(), err.getvalue().decode())
    finally:
        sys.argv = argv
        os.chdir(folder)


def environment(**more: str) -> dict[str, str]:
    """For a real process in any folder: this checkout is what `python -m selfrefine` finds."""
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more


def jsonl(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def task(id: str, prompt: str = "What is 1 + 2?", *references: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "prompt": [{"role": "user", "content": prompt}],
        "references": list(references or ("3",)),
    } | more


def answer(id: str, text: str = "3", **more: Any) -> dict[str, Any]:
    """A sample row as `generate` writes it, with what a hand-made row may leave out left out."""
    return {"id": id, "task": task(id.partition(".")[0]), "text": text} | more


def tree(folder: Path) -> Sequence[str]:
    """Every file and folder below, hidden ones too: what a failed command may not have left."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(result: Result, code: int, *words: str) -> None:
    """The code, a sentence with these words in it, no traceback, nothing on stdout."""
    assert result.code == code, result.err
    assert result.err.startswith("error: "), result.err
    assert 1 <= len(result.err.splitlines()) <= 2, result.err
    for word in words:
        assert word in result.err
    assert result.out == b""
