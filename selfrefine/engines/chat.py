"""From a chat to token ids, with everything inside the messages treated as data.

The chat template's own markers become special tokens; the same characters inside a message do not.
`apply_chat_template(split_special_tokens=True)` can't do this: it breaks the template's markers too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from selfrefine.errors import ConfigError
from selfrefine.records import Message

_PRIVATE_USE = range(0xE000, 0xF900)
_SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}


class ChatEncoder:
    """Renders and encodes chats with one tokenizer. Holds no model."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
        strings = sorted(added | set(tokenizer.all_special_tokens), key=lambda s: (-len(s), s))
        strings = [s for s in strings if s.strip()]
        self._special = re.compile("|".join(map(re.escape, strings))) if strings else None

    @property
    def template(self) -> str | None:
        template = self.tokenizer.chat_template
        if isinstance(template, dict):  # several by name; apply_chat_template takes this one too
            template = template.get("default")
        return template if isinstance(template, str) else None

    @property
    def template_sha256(self) -> str:
        return hashlib.sha256((self.template or "plain").encode()).hexdigest()

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids up to where the assistant begins to speak. Raises: ConfigError."""
        found: list[str] = []
        mark = _unused_character(messages)

        def hide(match: re.Match[str]) -> str:
            found.append(match.group(0))
            return f"{mark}{len(found) - 1}{mark}"

        def hidden(text: str) -> str:
            return self._special.sub(hide, text) if self._special else text

        text, bos = self._render([{"role": hidden(m.role), "content": hidden(m.content)} for m in messages])
        ids: list[int] = self._bos() if bos else []
        position = 0
        for match in re.finditer(f"{mark}([0-9]+){mark}", text):
            ids += self._encode(text[position : match.start()])
            ids += self.encode_text(found[int(match.group(1))])
            position = match.end()
        return tuple(ids + self._encode(text[position:]))

    def _render(self, chat: list[dict[str, str]]) -> tuple[str, bool]:
        """The chat as text, and whether a beginning-of-sequence token is still to be put before it."""
        if self.template is None:
            if len(chat) == 1:
                return chat[0]["content"], True
            turns = [f"{_SPEAKERS.get(m['role'], m['role'])}: {m['content']}" for m in chat]
            return "\n\n".join(turns) + "\n\nAssistant:", True
        try:
            text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # noqa: BLE001 - templates are foreign code and raise what they like
            roles = ", ".join(m["role"] for m in chat)
            raise ConfigError(
                f"the model's chat template refuses these messages (roles: {roles}): {error}"
            ) from None
        return str(text), False

    def _bos(self) -> list[int]:
        """What the tokenizer puts before plain text: nothing, or one beginning-of-sequence token."""
        with_special = self.tokenizer("a", add_special_tokens=True)["input_ids"]
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and with_special and with_special[0] == bos else []

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def encode_text(self, text: str) -> list[int]:
        """Plain text; a special token's characters are encoded as characters.

        Cutting such a string after its first character is enough: neither half is the token any more,
        whatever flags the tokenizer honours.
        """
        if self._special is None:
            return self._encode(text)
        ids: list[int] = []
        position = 0
        # Searched anew from each cut: what is left of one special token may begin with a shorter one.
        while match := self._special.search(text, position):
            cut = match.start() + 1
            ids += self._encode(text[position:cut])
            position = cut
        return ids + self._encode(text[position:])


def _unused_character(messages: Sequence[Message]) -> str:
    """A private-use character that no message contains, so that no text passes for a placeholder."""
    used = {character for message in messages for character in message.role + message.content}
    free = next((chr(code) for code in _PRIVATE_USE if chr(code) not in used), None)
    if free is None:
        raise ConfigError("these messages use up every private-use character of Unicode")
    return free
