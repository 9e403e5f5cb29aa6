"""From a chat to token ids, with everything inside the messages treated as data.

The chat template's own markers become special tokens; the same characters inside a message do not.
`apply_chat_template(split_special_tokens=True)` can't do this: it breaks the template's markers too.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from selfrefine.engines.text import TextEncoder
from selfrefine.errors import ConfigError
from selfrefine.records import Message

_PRIVATE_USE = range(0xE000, 0xF900)
_WORD = "XSYSTEMX"
_DATE_LETTERS = "aAwdbBmyYHIMpSfzZjUWcxXGuV"
_CLOCK = (
    "{%- macro strftime_now(format) -%}{%- set now = namespace(text=format) -%}"
    "{%- for code, shown in frozen_clock.items() -%}"
    "{%- set now.text = now.text | replace(code, shown) -%}{%- endfor -%}"
    "{{- now.text -}}{%- endmacro %}\n"
)
"""Before a template: its clock shows a given date. transformers passes data to templates and no functions."""
_SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}


class ChatEncoder:
    """Renders and encodes chats with one tokenizer. Holds no model."""

    def __init__(self, tokenizer: Any, say: Callable[[str], object] = lambda line: None) -> None:
        """`say` is told once where the template leaves out the system message."""
        self.tokenizer, self.text, self._say = tokenizer, TextEncoder(tokenizer), say
        self.date = datetime.date.today()
        self._checked = False

    @property
    def template(self) -> str | None:
        template = self.tokenizer.chat_template
        if isinstance(template, dict):  # several by name; apply_chat_template takes this one too
            template = template.get("default")
        return template if isinstance(template, str) else None

    @property
    def template_sha256(self) -> str:
        return hashlib.sha256((self.template or "plain").encode()).hexdigest()

    @property
    def reads_clock(self) -> bool:
        return "strftime_now" in (self.template or "")

    def keep_date(self, date: str | None) -> None:
        """The day that the template is told; None: today."""
        self.date = datetime.date.fromisoformat(date) if date else datetime.date.today()

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids up to where the assistant begins to speak. Raises: ConfigError."""
        found: list[str] = []
        mark = _unused_character(messages)

        def hide(match: re.Match[str]) -> str:
            found.append(match.group(0))
            return f"{mark}{len(found) - 1}{mark}"

        def hidden(text: str) -> str:
            return self.text.special.sub(hide, text) if self.text.special else text

        text, bos = self._render([{"role": hidden(m.role), "content": hidden(m.content)} for m in messages])
        self._check_system(messages)
        ids: list[int] = self._bos() if bos else []
        if not found:  # the text whole, as `apply_chat_template` encodes it
            return (*ids, *self.text.marked(text))
        placeholder = re.compile(f"{mark}([0-9]+){mark}")
        for stretch, marker, first in self._stretches(text):
            shown = placeholder.sub(lambda m: found[int(m.group(1))], stretch)
            ids += self.text.encode(shown) if first else self.text.after_token(shown)
            ids += marker
        return tuple(ids)

    def _stretches(self, text: str) -> Iterator[tuple[str, list[int], bool]]:
        """Text between the template's markers, the marker after it, and whether the text comes first."""
        position = 0
        for token, start, end in self.text.markers(text):
            yield text[position:start], [token], position == 0
            position = end
        yield text[position:], [], position == 0

    def _render(self, chat: list[dict[str, str]]) -> tuple[str, bool]:
        """The chat as text, and whether a beginning-of-sequence token is still to be put before it."""
        if self.template is None:
            if len(chat) == 1:
                return chat[0]["content"], True
            turns = [f"{_SPEAKERS.get(m['role'], m['role'])}: {m['content']}" for m in chat]
            return "\n\n".join(turns) + "\n\nAssistant:", True
        try:
            text = self.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True, **self._frozen_clock()
            )
        except Exception as error:  # noqa: BLE001 - templates are foreign code and raise what they like
            roles = ", ".join(m["role"] for m in chat)
            raise ConfigError(
                f"the model's chat template refuses these messages (roles: {roles}): {error}"
            ) from None
        return str(text), False

    def _frozen_clock(self) -> dict[str, Any]:
        """Arguments with which the template takes our date for today's, at midnight."""
        if not self.reads_clock:
            return {}
        midnight = datetime.datetime.combine(self.date, datetime.time())
        codes = [f"%{flag}{letter}" for letter in _DATE_LETTERS for flag in ("", "-")] + ["%%"]
        shown = {code: midnight.strftime(code) for code in codes}
        return {"chat_template": _CLOCK + (self.template or ""), "frozen_clock": shown}

    def _check_system(self, messages: Sequence[Message]) -> None:
        """Say once that the system message is left out, as templates of models without one do."""
        if self._checked or not any(m.role == "system" and m.content.strip() for m in messages):
            return
        self._checked = True
        # A plain word in its place: the template may write the real one otherwise, or a user have the same.
        shown, _ = self._render(
            [{"role": m.role, "content": _WORD if m.role == "system" else m.content} for m in messages]
        )
        if _WORD not in shown:
            self._say("the chat template leaves out the system message; put its text into the prompt")

    def _bos(self) -> list[int]:
        """What the tokenizer puts before plain text: nothing, or one beginning-of-sequence token."""
        with_special = self.tokenizer("a", add_special_tokens=True)["input_ids"]
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and with_special and with_special[0] == bos else []


def _unused_character(messages: Sequence[Message]) -> str:
    """A private-use character that no message contains, so that no text passes for a placeholder."""
    used = {character for message in messages for character in message.role + message.content}
    free = next((chr(code) for code in _PRIVATE_USE if chr(code) not in used), None)
    if free is None:
        raise ConfigError("these messages contain every private-use character of Unicode; remove some")
    return free
