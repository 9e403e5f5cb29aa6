"""Where tasks come from: files, a pipe, and generators. Adding a source is a file and a line in SOURCES."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from selfrefine.errors import ConfigError, DataError, UsageError
from selfrefine.records import Task
from selfrefine.runfolder.jsonl import IdIndex
from selfrefine.tasks.base import PLACEHOLDER, Located, SourceFn, TaskOptions, content_id
from selfrefine.tasks.lines import read_stream

__all__ = ["SOURCES", "TaskOptions", "listing", "load"]

SOURCES: dict[str, str] = {
    "jsonl": "selfrefine.tasks.lines:read_jsonl",
    "text": "selfrefine.tasks.lines:read_text",
    "parallel": "selfrefine.tasks.parallel:read",
    "gym": "selfrefine.tasks.gym:read",
    "concepts": "selfrefine.tasks.concepts:read",
    "hub": "selfrefine.tasks.hub:read",
}

_JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
_LISTING = [
    ("-", "JSON Lines from a pipe", "cat my.jsonl | selfrefine tasks -"),
    (
        "FILE.jsonl",
        "JSON Lines: prompt, messages, concepts, or question and answer; others with --prompt-field",
        "selfrefine tasks my.jsonl --prompt-field text --reference-field label",
    ),
    ("FILE.txt", "plain text, a prompt a line", "selfrefine tasks prompts.txt"),
    (
        "parallel:SRC,REF",
        "aligned text files; SRC.fr names the language, else --template says it",
        "selfrefine tasks parallel:val.en,val.fr",
    ),
    (
        "gym:NAME",
        "a reasoning-gym dataset, made to measure; its settings with --set",
        "selfrefine tasks gym:chain_sum --set max_terms=2 -n 64",
    ),
    (
        "concepts:N",
        "one short sentence that uses N given words",
        "selfrefine tasks concepts:4 --set verbs=1 -n 64",
    ),
    (
        "hub:NAME",
        "a Hugging Face dataset (needs the extra `selfrefine[hub]` and a network)",
        "selfrefine tasks hub:openai/gsm8k --set config=main --set split=test",
    ),
]


def listing() -> list[tuple[str, str, str]]:
    """(spelling, what it is in one line, an example) of every source."""
    return list(_LISTING)


def load(source: str, options: TaskOptions, stream: BinaryIO | None = None) -> Iterator[Task]:
    """Tasks of `source` as they are read, ids filled in and unique; `stream` is what "-" reads.

    Raises: ConfigError for an unknown source or option; DataError, naming file:line, for a bad row, an id
    that two rows share, or a source without a task; UsageError for a bad count, or "-" without a stream.
    """
    if options.n is not None and options.n < 1:
        raise UsageError(f"the number of tasks must be 1 or more, not {options.n}")
    if options.template is not None and PLACEHOLDER not in options.template:
        raise ConfigError(f"the template has no {PLACEHOLDER}, where the source's text would stand")
    if source == "-":
        if stream is None:
            raise UsageError("'-' reads tasks from a pipe, and there is none here")
        located = read_stream(stream, options)
    else:
        kind, name = _parse(source)
        module, _, function = SOURCES[kind].partition(":")
        located = cast(SourceFn, getattr(importlib.import_module(module), function))(name, options)
    return _identified(source, islice(located, options.n))


def _parse(source: str) -> tuple[str, str]:
    """The kind and the rest. "kind:" always wins; ./kind:x is a file of that name."""
    kind, colon, name = source.partition(":")
    if colon and kind in SOURCES:
        return kind, name
    if source.endswith(".txt"):
        return "text", source
    if source.endswith(_JSON_SUFFIXES) or Path(source).exists():
        return "jsonl", source
    near = difflib.get_close_matches(kind, SOURCES, n=1)
    hint = f"did you mean {near[0]}:{name}?" if near else f"there are {', '.join(s for s, _, _ in _LISTING)}"
    raise ConfigError(f"{source}: no such file or task source; {hint}")


def _identified(source: str, located: Iterator[Located]) -> Iterator[Task]:
    ids = IdIndex()
    number = 0
    for number, (where, task) in enumerate(located, 1):
        if task.id:
            ids.check(task.id, where)
            yield task
            continue
        identity = content_id(task)
        try:
            ids.check(identity, where)
        except DataError:
            # A question that stands twice in a source is no error: it is a repeat, for `splits` to drop.
            identity = content_id(task, occurrence=number)
            ids.check(identity, where)
        yield msgspec.structs.replace(task, id=identity)
    if number == 0:
        raise DataError(f"{'stdin' if source == '-' else source}: there are no tasks in it")
