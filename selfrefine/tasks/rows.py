"""One JSON row in any of the shapes that docs/records.md lists, as a Task.

Columns that are used move into the task; all others travel on unchanged and unread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from selfrefine.errors import DataError
from selfrefine.records import (
    PROMPT_FIELDS,
    UNDECODABLE,
    Message,
    Task,
    decode_task,
    parse_row,
    why_undecodable,
)
from selfrefine.tasks import concepts, messages
from selfrefine.tasks.base import PLACEHOLDER, TaskOptions, wrap

_ANSWERS = {
    "prompt": ("completion", "chosen"),
    "question": ("answer",),
    "instruction": ("output", "response"),
}
"""By prompt field, the columns that hold the reference, best first."""
_CHATS = ("messages", "conversations")
"""Beside a `prompt`, the columns that may hold the whole chat."""
_SHAPES = {
    "conversations": "ShareGPT rows (conversations); the last answer is the reference",
    "instruction": "alpaca rows (instruction, input); the reference is `{}`",
    "completion": "rows of prompt and completion; the reference is `completion`",
    "chosen": "preference rows (chosen, rejected); the reference is `chosen`",
}


def shape_of(line: bytes, options: TaskOptions) -> str | None:
    """What a row of another program is taken for, in words; None for shapes of our own."""
    row = parse_row(line, "")
    field = _prompt_field(row, options)
    if options.prompt_field or field is None:
        return None
    answer = _answer_field(field, row, options)
    said = _SHAPES.get(answer or "") or _SHAPES.get(field)
    return said.format(answer) if said else None


def read_row(line: bytes, where: str, options: TaskOptions) -> Task:
    """A task from one JSON object; id "" where the row has none. Raises: DataError naming `where`."""
    row = parse_row(line, where)
    field = _prompt_field(row, options)
    if field is None or field not in row:
        raise DataError(f"{where}: {_no_prompt(row, field)}")
    given, template = _value(row, field, where), PLACEHOLDER
    if field == "chosen":
        _has_prompt_inside(given, row, where)
    if field == "concepts":
        template = concepts.TEMPLATE
        row["meta"] = Raw(msgspec.json.encode(_with_concepts(given, row, where)))
        given = ", ".join(given)
    elif field == "instruction" and not options.prompt_field:
        given = _instruction(given, row, where)
    chat = messages.read(given, where)
    if field == "instruction" and not options.prompt_field:
        chat = [*_history(row, where), *chat]
    chat, references = _split_answer(field, chat, row)
    source = _answer_field(field, row, options)
    if source is not None:
        if source not in row:
            raise DataError(f"{where}: no field {source!r} for the reference; the row has {_names(row)}")
        own, references = references, _references(row, source, where)
        if own and not options.reference_field and own != references:
            raise DataError(f"{where}: {field} ends with another answer than {source}; leave one out")
    chat = _whole(
        chat, field, (source,) if options.reference_field else (source, "chosen", "rejected"), row, where
    )
    row.pop(source or "", None)
    chat = _with_system(chat, field, row, where, options)
    if not chat or chat[-1].role != "user" or not chat[-1].content.strip():
        raise DataError(f"{where}: the prompt must end with a user message that is not blank")
    row.pop(field, None)
    row["prompt"] = Raw(msgspec.json.encode(wrap(chat, options, template)))
    if references is not None:
        row["references"] = Raw(msgspec.json.encode(references))
    identity = _value(row, "id", where) if "id" in row else None
    if identity is None or (isinstance(identity, int) and not isinstance(identity, bool)):
        row["id"] = Raw(msgspec.json.encode("" if identity is None else str(identity)))
    return decode_task(msgspec.json.encode(row), where)


def _prompt_field(row: dict[str, Raw], options: TaskOptions) -> str | None:
    return options.prompt_field or next((name for name in PROMPT_FIELDS if name in row), None)


def _answer_field(field: str, row: dict[str, Raw], options: TaskOptions) -> str | None:
    """The column that holds the reference; none where the row names its references itself."""
    if options.reference_field or "references" in row:
        return options.reference_field
    found = next((name for name in _ANSWERS.get(field, ()) if name in row), None)
    if found is not None or options.prompt_field:
        return found
    if field != "chosen" and {"chosen", "rejected"} <= row.keys():
        return "chosen"
    if field == "prompt":
        return next((name for name in _CHATS if name in row and _begins_as_chat(row[name])), None)
    return None


def _begins_as_chat(value: Raw) -> bool:
    """A column of that name with anything else in it is a foreign one."""
    text = bytes(value)
    return text[:1] == b"[" and text[1:].lstrip()[:1] == b"{"


def _value(row: dict[str, Raw], field: str, where: str) -> Any:
    try:
        return msgspec.json.decode(row[field])
    except UNDECODABLE as error:
        raise DataError(f"{where}: {field}: {why_undecodable(bytes(row[field]), error)}") from None


def _with_concepts(found: Any, row: dict[str, Raw], where: str) -> dict[str, Any]:
    """The row's meta with the concepts in it, which is where `coverage` looks."""
    meta = (_value(row, "meta", where) if "meta" in row else None) or {}
    if not isinstance(found, list) or not all(isinstance(word, str) and word.strip() for word in found):
        raise DataError(f"{where}: concepts is not a list of words")
    if not found:
        raise DataError(f"{where}: concepts is an empty list")
    if not isinstance(meta, dict):
        raise DataError(f"{where}: meta is not an object")
    return {**meta, "concepts": found}


def _has_prompt_inside(chosen: Any, row: dict[str, Raw], where: str) -> None:
    """Without a `prompt`, both sides of a preference are chats that begin with it."""
    rejected = _value(row, "rejected", where) if "rejected" in row else chosen
    if not messages.is_chat(chosen) or not messages.is_chat(rejected):
        raise DataError(f"{where}: chosen and rejected are texts and there is no prompt column")


def _whole(
    chat: list[Message], field: str, columns: Iterable[str | None], row: dict[str, Raw], where: str
) -> list[Message]:
    """What is answered: the prompt, with what the columns that hold the answers have of the chat besides.

    Their last messages alone would be learnt as answers to another question. A row with references of its
    own has said what it asks. Raises: DataError where columns disagree.
    """
    if "references" in row:
        return chat
    begun = {field: chat} if field == "chosen" else {}
    for column in dict.fromkeys(column for column in columns if column in row and column != field):
        value = _value(row, column, where)
        if messages.is_chat(value):
            side = messages.read(value, f"{where}: {column}")
            if field != "chosen":
                side = messages.joined(chat, side, (field, column), where)
            begun[column] = messages.asked(side)
        elif value is not None:
            begun[column] = chat
    for column in begun:
        first = next(iter(begun))
        if not messages.alike(begun[first], begun[column]):
            raise DataError(f"{where}: {first} and {column} do not begin with the same prompt")
    return next(iter(begun.values()), chat)


def _instruction(given: Any, row: dict[str, Raw], where: str) -> str:
    """Alpaca's `input` (Dolly's `context`) stands below its instruction; often it is empty."""
    parts = [given]
    for name in ("input", "context"):
        if name in row:
            parts.append(_value(row, name, where) or "")
            del row[name]
    if not all(isinstance(part, str) for part in parts):
        raise DataError(f"{where}: instruction and input are not both text")
    return "\n\n".join(part for part in parts if part.strip())


def _history(row: dict[str, Raw], where: str) -> list[Message]:
    """Alpaca's earlier turns: pairs of a question and its answer."""
    turns = (_value(row, "history", where) if "history" in row else None) or []
    row.pop("history", None)
    if not isinstance(turns, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
        raise DataError(f"{where}: history is not a list of [question, answer]")
    if not all(isinstance(text, str) for turn in turns for text in turn):
        raise DataError(f"{where}: history is not text")
    roles = ("user", "assistant")
    return [
        Message(role=role, content=text) for turn in turns for role, text in zip(roles, turn, strict=True)
    ]


def _with_system(
    chat: list[Message], field: str, row: dict[str, Raw], where: str, options: TaskOptions
) -> list[Message]:
    """The system message may stand in a column of its own. One of the options replaces both."""
    if field == "concepts" or "system" not in row:
        return chat
    system = _value(row, "system", where)
    if system is not None and not isinstance(system, str):
        if field in ("conversations", "instruction"):
            raise DataError(f"{where}: system is not text")
        return chat  # a foreign column of that name
    del row["system"]
    own = [message.content for message in chat if message.role == "system"]
    if own and system and system.strip() not in map(str.strip, own) and options.system is None:
        raise DataError(
            f"{where}: the column system and {field} have different system messages; leave one out"
        )
    return chat if own or not system else [Message(role="system", content=system), *chat]


def _split_answer(
    field: str, chat: list[Message], row: dict[str, Raw]
) -> tuple[list[Message], list[str] | None]:
    """A conversation's last assistant message is its answer, unless the row names its references."""
    if field == "prompt" or len(chat) < 2 or chat[-1].role != "assistant":
        return chat, None
    return chat[:-1], None if "references" in row else [chat[-1].content]


def _references(row: dict[str, Raw], source: str, where: str) -> list[str]:
    """A string, a number (as it is spelled), a list of these, a chat's last answer, or null for none."""
    value = messages.as_list(_value(row, source, where))
    if value is None:
        return []
    if messages.is_chat(value):
        if source in _CHATS and messages.read(value, f"{where}: {source}")[-1].role != "assistant":
            return []  # not answered yet
        return [messages.answer(value, f"{where}: {source}")]
    if not isinstance(value, list):
        value, spelled = [value], [bytes(row[source]).decode().strip()]
    else:
        spelled = [bytes(item).decode().strip() for item in msgspec.json.decode(row[source], type=list[Raw])]
    references = []
    for item, spelling in zip(value, spelled, strict=True):
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise DataError(f"{where}: {source} is not text, nor a list of texts")
        references.append(item if isinstance(item, str) else spelling)
    return references


def _no_prompt(row: dict[str, Raw], field: str | None) -> str:
    if field is None and {"task", "text"} <= row.keys():
        return "this is an answer, not a task; `jq -c .task` gives its task"
    wanted = f"no {', '.join(PROMPT_FIELDS[:-1])}" if field is None else f"no field {field!r}"
    return f"{wanted} in this row; it has {_names(row)} (name one with --prompt-field)"


def _names(row: dict[str, Raw]) -> str:
    return ", ".join(list(row)[:8]) or "no fields"
