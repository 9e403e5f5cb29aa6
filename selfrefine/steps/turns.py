"""The turn that revises: the chat that shows a task, a text that answers it, and what is wrong with that."""

from __future__ import annotations

from typing import NamedTuple

from selfrefine.prompts import Template
from selfrefine.records import Message, Sample


class Chat(NamedTuple):
    """The chat a draft answers: its system messages, the others before the last question, and that."""

    system: tuple[Message, ...]
    before: tuple[Message, ...]
    task: str


def of_chat(draft: Sample) -> Chat:
    """From the draft's own context and not the task's prompt: `generate --system` stands only there."""
    messages = draft.context
    users = [i for i, message in enumerate(messages) if message.role == "user"]
    last = users[-1] if users else len(messages) - 1
    system = tuple(message for message in messages[:last] if message.role == "system")
    before = tuple(message for message in messages[:last] if message.role != "system")
    return Chat(system, before, messages[last].content if messages else "")


def as_text(messages: tuple[Message, ...]) -> str:
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def revise_chat(
    template: Template,
    chat: Chat,
    answer: str,
    critique: str,
    *,
    memory: str = "",
    feedback: str = "",
    principle: str = "",
) -> tuple[Message, ...]:
    """What a policy is asked that is to revise `answer`. Raises: ConfigError from the template."""
    text = template.render(
        task=chat.task,
        conversation=as_text(chat.before),
        answer=answer,
        critique=critique,
        memory=memory,
        feedback=feedback,
        principle=principle,
    )
    return (*chat.system, Message(role="user", content=text))
