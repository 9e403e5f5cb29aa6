"""`selfrefine show`: the rows of a file as a person reads them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfrefine.cli import common
from selfrefine.errors import DataError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from selfrefine.records import Sample, Task


def command(
    ctx: typer.Context,
    source: common.Input = "-",
    n: Annotated[int | None, typer.Option("-n", min=1, help="Show this many rows at most.")] = None,
    id_: Annotated[
        str | None, typer.Option("--id", metavar="TEXT", help="Show rows whose id begins with this.")
    ] = None,
) -> None:
    """Show rows as text: prompt, answer, reward with its parts, critiques.

    Reads answers, tasks, pairs, and any other JSON Lines; also .gz, .zst and .parquet. In a pipe, such as
    into less, the text is plain.

    \b
      selfrefine show samples.jsonl -n 8
      selfrefine show runs/demo/round-001/reward.jsonl --id 4d298faea8ba3535
    """
    common.need_input(ctx, source)
    for folder in (Path(source), common.RUNS_DIR / source):
        if folder.is_dir():
            is_run = (folder / "manifest.json").is_file()
            more = f" in it, or the run: selfrefine runs show {shlex.quote(source)}" if is_run else " in it"
            raise UsageError(f"{source} is a folder: name a JSON Lines file{more}")
    shown, before = 0, None
    for row in _rows(source):
        if not isinstance(row, str) and not row.id.startswith(id_ or ""):
            continue
        before = _show(row, before)
        shown += 1
        if shown == n:
            break
    if not shown and id_ is not None:
        raise DataError(f"{source}: no row has an id that begins with {id_!r}")


def _rows(source: str) -> Iterator[Sample | Task | str]:
    """Each row as what it is; of no known kind, its JSON. Raises: DataError naming file and line."""
    import json

    from selfrefine import records
    from selfrefine.runfolder.jsonl import lines, open_input
    from selfrefine.tasks.lessons import rows_of

    name = "stdin" if source == "-" else source
    with open_input(source) as stream:
        for where, line in lines(stream, name):
            raw = records.parse_row(line, where)
            if {"id", "task", "text"} <= raw.keys():
                yield records.decode_sample(line, where)
            elif "rejected" in raw:
                yield from rows_of(_task(line, where), where)
            elif any(field in raw for field in records.PROMPT_FIELDS):
                yield _task(line, where)
            else:
                yield json.dumps(json.loads(line), indent=2, ensure_ascii=False)


def _task(line: bytes, where: str) -> Task:
    from msgspec.structs import replace

    from selfrefine.tasks.base import TaskOptions, content_id
    from selfrefine.tasks.rows import read_row

    task = read_row(line, where, TaskOptions())
    return task if task.id else replace(task, id=content_id(task))


def _show(row: Sample | Task | str, before: Task | None) -> Task | None:
    """Print it, an answer below its task, which is not said again; returns that task."""
    from rich.console import Group

    from selfrefine.records import Sample, Task
    from selfrefine.report.safe_text import text
    from selfrefine.report.tables import sample_view, task_view

    if isinstance(row, str):
        common.show(text(row, newlines=True))
        return None
    gap: list[RenderableType] = [] if before is None else [text("")]
    if isinstance(row, Task):
        common.show(Group(*gap, task_view(row)))
        return row
    assert isinstance(row, Sample)
    head = [] if row.task == before else [*gap, task_view(row.task)]
    common.show(Group(*head, sample_view(row)))
    return row.task
