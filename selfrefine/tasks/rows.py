"""One JSON row in any of the recognised shapes, as a Task.

    {"id", "prompt": [messages], "references", "tags", "meta"}   the project's own
    {"prompt": "text"}                                           one user message
    {"messages": [...]}                                          a last assistant message is the reference
    {"question", "answer"}                                       the answer is the reference
    {"concepts": ["word", ...]}                                  a sentence that uses them, as tasks.concepts
    {anything}                                                   with prompt_field and reference_field

Columns that are used move into the task; all others travel on unchanged.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from selfrefine.errors import DataError
from selfrefine.records import Message, Task, decode_task, why_undecodable
from selfrefine.tasks import concepts
from selfrefine.tasks.base import PLACEHOLDER, TaskOptions, wrap

ROLES = ("system", "user", "assistant")
PROMPT_FIELDS = ("prompt", "messages", "question", "concepts")
_decode_row = msgspec.json.Decoder(dict[str, Raw]).decode


def read_row(line: bytes, where: str, options: TaskOptions) -> Task:
    """A task from one JSON object; id "" where the row has none. Raises: DataError naming `where`."""
    try:
        row = _decode_row(line)
        values = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: {why_undecodable(line, error)}") from None
    field = options.prompt_field or next((name for name in PROMPT_FIELDS if name in row), None)
    if field is None or field not in row:
        raise DataError(f"{where}: {_no_prompt(row, field)}")
    template = PLACEHOLDER
    if field == "concepts":
        template = concepts.TEMPLATE
        row["meta"] = Raw(msgspec.json.encode(_with_concepts(values, where)))
        values[field] = ", ".join(values[field])
    messages, references = _split_answer(field, _messages(values[field], where), row)
    source = options.reference_field or ("answer" if field == "question" and "answer" in row else None)
    if source is not None and (options.reference_field or "references" not in row):
        if source not in row:
            raise DataError(f"{where}: no field {source!r} for the reference; the row has {_names(row)}")
        references = _references(values[source], row[source], f"{where}: {source}")
        del row[source]
    if messages[-1].role != "user" or not messages[-1].content.strip():
        raise DataError(f"{where}: the prompt must end with a user message that is not blank")
    row.pop(field, None)
    row["prompt"] = Raw(msgspec.json.encode(wrap(messages, options, template)))
    if references is not None:
        row["references"] = Raw(msgspec.json.encode(references))
    identity = values.get("id")
    if identity is None or (isinstance(identity, int) and not isinstance(identity, bool)):
        row["id"] = Raw(msgspec.json.encode("" if identity is None else str(identity)))
    return decode_task(msgspec.json.encode(row), where)


def _with_concepts(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The row's meta with the concepts in it, which is where `coverage` looks."""
    found, meta = values["concepts"], values.get("meta") or {}
    if not isinstance(found, list) or not all(isinstance(word, str) and word.strip() for word in found):
        raise DataError(f"{where}: concepts is not a list of words")
    if not isinstance(meta, dict):
        raise DataError(f"{where}: meta is not an object")
    return {**meta, "concepts": found}


def _split_answer(
    field: str, messages: list[Message], row: dict[str, Raw]
) -> tuple[list[Message], list[str] | None]:
    """A conversation's last assistant message is its answer, unless the row names its references."""
    if field == "prompt" or len(messages) < 2 or messages[-1].role != "assistant":
        return messages, None
    return messages[:-1], None if "references" in row else [messages[-1].content]


def _messages(value: Any, where: str) -> list[Message]:
    if isinstance(value, str):
        return [Message(role="user", content=value)]
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: the prompt is neither text nor a list of messages")
    messages = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict):
            raise DataError(f"{where}: message {number} is not an object with role and content")
        role = message.get("role")
        if role not in ROLES or message.get("tool_calls"):
            what = "tool calls" if message.get("tool_calls") else f"role {role!r}"
            raise DataError(f"{where}: message {number}: {what} cannot be used (roles: {', '.join(ROLES)})")
        messages.append(
            Message(role=role, content=_content(message.get("content"), f"{where}: message {number}"))
        )
    return messages


def _content(value: Any, where: str) -> str:
    """Text, or the joined text parts of a content list."""
    parts = value if isinstance(value, list) else [{"type": "text", "text": value}]
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise DataError(f"{where}: its content is not text" + (f" ({kind})" if kind != "text" else ""))
        texts.append(part["text"])
    return "".join(texts)


def _references(value: Any, raw: Raw, where: str) -> list[str]:
    """A string, a number (as it is spelled), a list of these, or null for none."""
    if value is None:
        return []
    if not isinstance(value, list):
        value, spelled = [value], [bytes(raw).decode().strip()]
    else:
        spelled = [bytes(item).decode().strip() for item in msgspec.json.decode(raw, type=list[Raw])]
    references = []
    for item, spelling in zip(value, spelled, strict=True):
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise DataError(f"{where} is not text, nor a list of texts")
        references.append(item if isinstance(item, str) else spelling)
    return references


def _no_prompt(row: dict[str, Raw], field: str | None) -> str:
    if field is None and {"task", "text"} <= row.keys():
        return "this is an answer, not a task; `jq -c .task` gives its task"
    wanted = f"no {', '.join(PROMPT_FIELDS)}" if field is None else f"no field {field!r}"
    return f"{wanted} in this row; it has {_names(row)} (name one with --prompt-field)"


def _names(row: dict[str, Raw]) -> str:
    return ", ".join(list(row)[:8]) or "no fields"
