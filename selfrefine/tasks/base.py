"""What a task source is given and what it yields.

A source is a function (name, options) -> Iterator[(where, Task)]. `where` is file:line, or
source:number where there is no file; a task without an id of its own carries "" and `tasks.load` fills it in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from selfrefine.errors import ConfigError
from selfrefine.records import Message, Task

Located = tuple[str, Task]
SourceFn = Callable[[str, "TaskOptions"], Iterator[Located]]

PLACEHOLDER = "{source}"
GENERATED = 500
"""How many tasks a generating source makes when `n` is not given."""


class TaskOptions(Struct, frozen=True, kw_only=True):
    """How to read or make tasks. A source that has no use for an option that was set refuses it."""

    n: int | None = None
    """At most this many tasks; generating sources make exactly this many (500 by default)."""
    seed: int = 0
    """Decides which tasks a generating source makes; files are read as they are."""
    template: str | None = None
    """Text around what the source asks, which stands at {source}. Default: the source's own."""
    suffix: str = ""
    """Appended to the last user message, after the template."""
    system: str | None = None
    """A system message put before the prompt, in place of one that is there."""
    prompt_field: str | None = None
    reference_field: str | None = None
    settings: Mapping[str, str | int | float | bool] = {}
    """`--set key=value` for the source (gym, hub, concepts)."""


def wrap(
    messages: Sequence[Message], options: TaskOptions, default: str = PLACEHOLDER
) -> tuple[Message, ...]:
    """The prompt with template, suffix and system message; the last message is the question.

    The template is filled by replacement, not by str.format: braces in a question are data.
    """
    last = messages[-1]
    text = (options.template or default).replace(PLACEHOLDER, last.content) + options.suffix
    kept = tuple(messages[:-1])
    if options.system is not None:
        kept = (Message(role="system", content=options.system), *(m for m in kept if m.role != "system"))
    return (*kept, Message(role=last.role, content=text))


def ask(text: str, options: TaskOptions, default: str = PLACEHOLDER) -> tuple[Message, ...]:
    """One user message around `text`."""
    return wrap([Message(role="user", content=text)], options, default)


def content_id(task: Task, occurrence: int | None = None) -> str:
    """The id of a task that has none: 16 hex digits of a sha256 over its canonical JSON.

    Canonical: compact UTF-8 JSON of {"prompt", "references"} (after template and suffix), so the same
    question has the same id in any file and from any seed. Where that id is taken already (the row is
    repeated), `occurrence`, the row's number in its source, is hashed too.
    """
    content: dict[str, object] = {"prompt": task.prompt, "references": task.references}
    if occurrence is not None:
        content["occurrence"] = occurrence
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()[:16]


def only(source: str, options: TaskOptions, *allowed: str) -> None:
    """Refuses options that `source` would parse and then ignore. Raises: ConfigError."""
    for option in ("prompt_field", "reference_field", "settings"):
        if getattr(options, option) and option not in allowed:
            raise ConfigError(f"{source}: {option} has no meaning for this source")
