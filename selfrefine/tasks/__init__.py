"""Where tasks come from: files, a pipe, and generators. One file per source, which describes itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from selfrefine.boundary import escaped
from selfrefine.errors import ConfigError, DataError, UsageError
from selfrefine.records import Task, encode
from selfrefine.registry import BUILT_IN, Registry, outside_code, split
from selfrefine.runfolder.formats import bare
from selfrefine.runfolder.jsonl import IdIndex
from selfrefine.tasks.base import PLACEHOLDER, Located, SourceKind, TaskOptions, checked_options, content_id
from selfrefine.words import near

__all__ = ["SOURCES", "SourceKind", "TaskOptions", "listing", "load", "located"]

SOURCES: Registry[SourceKind] = Registry(
    "task source",
    "selfrefine.tasks",
    "selfrefine.tasks.base:SourceKind",
    {
        "-": "selfrefine.tasks.lines:STREAM",
        "jsonl": "selfrefine.tasks.lines:JSONL",
        "text": "selfrefine.tasks.lines:TEXT",
        "parallel": "selfrefine.tasks.parallel:PARALLEL",
        "gym": "selfrefine.tasks.gym:GYM",
        "concepts": "selfrefine.tasks.concepts:CONCEPTS",
        "hub": "selfrefine.tasks.hub:HUB",
    },
)

_JSON_SUFFIXES = (".jsonl", ".json", ".ndjson", ".parquet")


def listing() -> list[SourceKind]:
    """Every source that can be used, plugins' included."""
    return list(SOURCES.usable())


def load(source: str, options: TaskOptions, stream: Iterable[bytes] | None = None) -> Iterator[Task]:
    """The tasks of `located`."""
    return (task for _, task in located(source, options, stream))


def located(source: str, options: TaskOptions, stream: Iterable[bytes] | None = None) -> Iterator[Located]:
    """(where, task) of `source` as they are read, ids filled in and unique.

    `stream`: the lines to read: of "-", or of a file that is open already and is named by `source`.

    Raises: ConfigError for an unknown source, option or setting; DataError, naming file:line, for a bad row,
    an id that two rows share, or a source without a task; UsageError for a bad count, or "-" without one.
    """
    if options.n is not None and options.n < 1:
        raise UsageError(f"the number of tasks must be 1 or more, not {options.n}")
    for text in filter(None, (options.template, options.suffix, options.system)):
        if text != text.encode(errors="ignore").decode():
            raise ConfigError(f"{text!r}: template, suffix and system message must be UTF-8 text")
    if options.template is not None and PLACEHOLDER not in options.template:
        raise ConfigError(f"the template has no {PLACEHOLDER}, which the task's text replaces")
    if source == "-" and stream is None:
        raise UsageError("'-' reads tasks from a pipe, and stdin is not one")
    name, rest = _parse(source) if stream is None else ("-", "stdin" if source == "-" else source)
    kind = SOURCES.get(name)
    options = msgspec.structs.replace(checked_options(kind, source, options), stream=stream)
    return _identified(source, islice(_read(kind, rest, options), options.n))


def _read(kind: SourceKind, rest: str, options: TaskOptions) -> Iterator[Located]:
    with outside_code("task source", kind.name, kind.origin):
        found = iter(kind.read(rest, options))
    while True:
        with outside_code("task source", kind.name, kind.origin):
            if (one := next(found, None)) is None:
                return
            if kind.origin != BUILT_IN:
                one = _checked(one)
        yield one


def _checked(found: object) -> Located:
    """What a plugin or a file yields. Raises: TypeError, DataError."""
    match found:
        case (str() as where, Task() as task):
            try:
                msgspec.convert(msgspec.json.decode(encode(task)), Task)
            except DataError:
                raise DataError(f"{escaped(where)}: a text of this task is not UTF-8") from None
            return where, task
    raise TypeError(f"a source yields (where, Task), not {type(found).__name__}")


def _parse(source: str) -> tuple[str, str]:
    """The source's name and the rest. "kind:" wins, a plugin's over what is no file; ./kind:x is a file."""
    name, colon, rest = split(source)
    if ".py:" in name or (colon and name != "-" and name in SOURCES.built_in):
        return name, rest
    if colon and not Path(source).exists() and name in SOURCES:
        return name, rest
    if bare(source).endswith(".txt"):
        return "text", source
    if bare(source).endswith(_JSON_SUFFIXES) or Path(source).exists():
        return "jsonl", source
    meant = near(name, SOURCES)
    spellings = ", ".join(kind.spelling for kind in listing())
    hint = f"did you mean {meant}:{rest}?" if meant else f"known: {spellings}"
    raise ConfigError(f"{source}: no such file or task source; {hint}")


def _identified(source: str, found: Iterator[Located]) -> Iterator[Located]:
    ids = IdIndex()
    number = 0
    for number, (where, task) in enumerate(found, 1):
        if task.id:
            ids.check(task.id, where)
            yield where, task
            continue
        identity = content_id(task)
        try:
            ids.check(identity, where)
        except DataError:
            # A question that stands twice in a source is no error: it is a repeat, for `splits` to drop.
            identity = content_id(task, occurrence=number)
            ids.check(identity, where)
        yield where, msgspec.structs.replace(task, id=identity)
    if number == 0:
        raise DataError(f"{'stdin' if source == '-' else source}: no tasks in it")
