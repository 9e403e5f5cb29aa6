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


def as_list(value: Any) -> Any:
    """A single message, as some preference data has it, is a chat of one; anything else is left as it is."""
    return [value] if isinstance(value, dict) and {"role", "from"} & value.keys() else value


def asked(chat: list[Message]) -> list[Message]:
    """The chat without the answer that it may end with."""
    return chat[:-1] if chat[-1].role == "assistant" else chat


def joined(prompt: list[Message], side: list[Message], names: tuple[str, str], where: str) -> list[Message]:
    """The whole chat of a prompt and of a column that answers it.

    The column begins with the assistant's turn, and follows the prompt; or it has the prompt in it: at its
    beginning, or as its last question (data of long chats names one or the other). A system message that
    only one of them has stands for both. Raises: DataError saying where they disagree.
    """
    (system, turns), (own, others) = _without_system(prompt), _without_system(side)
    if system and own and not alike(system, own):
        raise DataError(
            f"{where}: {names[0]} and {names[1]} have different system messages; correct one of them"
        )
    if not others or others[0].role == "assistant":
        whole = [*turns, *others]
    elif _stands_in(turns, asked(others)):
        whole = others
    else:
        raise DataError(
            f"{where}: {names[0]} and {names[1]} disagree: "
            f"{names[1]} begins with neither {names[0]} nor an answer to it; correct one of them"
        )
    return [*(own or system), *whole]


def alike(one: list[Message], other: list[Message]) -> bool:
    """White space at the ends of a message aside, which copies of a text lose."""
    told = [[(m.role, m.content.strip()) for m in chat] for chat in (one, other)]
    return told[0] == told[1]


def _stands_in(turns: list[Message], chat: list[Message]) -> bool:
    n = len(turns)
    return alike(turns, chat[:n]) or alike(turns, chat[-n:])


def _without_system(chat: list[Message]) -> tuple[list[Message], list[Message]]:
    """The system messages that a chat begins with, and its turns."""
    n = next((i for i, message in enumerate(chat) if message.role != "system"), len(chat))
    return chat[:n], chat[n:]


def answer(value: Any, where: str) -> str:
    """The answer itself, or the last message of a chat that ends with it. Raises: DataError."""
    if isinstance(value, str):
        return value
    value = as_list(value)
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
