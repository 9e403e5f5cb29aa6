"""Chats as other programs write them: lists of {"role", "content"}, or of ShareGPT's {"from", "value"}."""

from __future__ import annotations

from typing import Any

from selfrefine.errors import DataError
from selfrefine.records import Message

ROLES = {"system": "system", "user": "user", "human": "user"} | dict.fromkeys(
    ("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"
)
"""What a role is called, to what it is."""


def read(value: Any, where: str) -> list[Message]:
    """A text is one user message. Raises: DataError naming the message that cannot be used."""
    if isinstance(value, str):
        return [Message(role="user", content=value)]
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: the prompt is neither text nor a list of messages")
    return [_message(message, f"{where}: message {number}") for number, message in enumerate(value, 1)]


def is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def answer(value: Any, where: str) -> str:
    """The answer itself, or the last message of a chat that ends with it. Raises: DataError."""
    if isinstance(value, str):
        return value
    if not is_chat(value):
        raise DataError(f"{where}: neither text nor a list of messages")
    last = _message(value[-1], f"{where}: message {len(value)}")
    if last.role != "assistant":
        raise DataError(f"{where}: the last message is not the assistant's")
    return last.content


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise DataError(f"{where} is not an object with role and content")
    told = value.get("role", value.get("from"))
    role = ROLES.get(told) if isinstance(told, str) else None
    if role is None or value.get("tool_calls"):
        what = "tool calls" if value.get("tool_calls") else f"role {told!r}"
        raise DataError(f"{where}: {what} cannot be used (roles: {', '.join(dict.fromkeys(ROLES.values()))})")
    return Message(role=role, content=_content(value.get("content", value.get("value")), where))


def _content(value: Any, where: str) -> str:
    """Text, or the joined text parts of a content list."""
    parts = value if isinstance(value, list) else [{"type": "text", "text": value}]
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise DataError(f"{where}: the content is not text" + (f" ({kind})" if kind != "text" else ""))
        texts.append(part["text"])
    return "".join(texts)
