"""What a task source is given, what it yields and what it says of itself.

A source reads by a function (name, options) -> Iterator[(where, Task)]; the name is what stands behind
"KIND:". `where` is file:line, or source:number where there is no file; a task without an id of its own
carries "" and `tasks.load` fills it in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from selfrefine.errors import ConfigError
from selfrefine.records import Message, Task
from selfrefine.registry import BUILT_IN, NoSettings, Origin, converted

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
    settings: Any = {}
    """`--set key=value` for the source: a table, of which the source gets its own struct."""
    stream: Iterable[bytes] | None = None
    """What a source that is open already reads."""
    say: Callable[[str], object] = lambda _: None
    """Told what rows of another program were taken for."""


class SourceKind(Struct, frozen=True, kw_only=True):
    """What a task source says of itself. Every field of `settings` has a `Meta(description=...)`."""

    name: str
    spelling: str
    """How it is asked for, such as gym:NAME."""
    about: str
    """What it is, in a line."""
    example: str
    """A command."""
    read: SourceFn
    takes: tuple[Literal["prompt_field", "reference_field"], ...] = ()
    """Which of these options it has a use for."""
    settings: type[Struct] = NoSettings
    own_settings: bool = False
    """Its settings depend on the name: it gets the table as it is given, and checks it."""
    origin: Origin = BUILT_IN


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


def checked_options(kind: SourceKind, source: str, options: TaskOptions) -> TaskOptions:
    """With the source's settings as its own struct. Raises: ConfigError for what it would not read."""
    known = kind.settings.__struct_fields__
    for option in ("prompt_field", "reference_field", "settings"):
        has_use = bool(known) or kind.own_settings if option == "settings" else option in kind.takes
        if getattr(options, option) and not has_use:
            raise ConfigError(f"{source}: this source does not use {option}")
    if kind.own_settings:
        return options
    # Not strict: "2" is a number, as it comes from a command line.
    own = converted("tasks.settings", options.settings, kind.settings, strict=False)
    return msgspec.structs.replace(options, settings=own)
