"""A transformers tokenizer as a `Tokeniser`, and the tokens at which the model's answers end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from selfrefine.engines.chat import ChatEncoder
from selfrefine.errors import EngineError
from selfrefine.records import Message


class LocalTokeniser:
    """Implements engines.base.Tokeniser. Raises: EngineError where no token ends an answer."""

    def __init__(self, model: Any, tokenizer: Any, say: Callable[[str], object] = lambda line: None) -> None:
        self.tokenizer, self.chat = tokenizer, ChatEncoder(tokenizer, say)
        self.stop_ids = _stop_ids(model, tokenizer)
        self.end_id = _end_of_turn(tokenizer, self.stop_ids)

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return self.chat.encode(messages)

    def encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(self.chat.text.encode(text))

    def encode_answer(self, text: str) -> tuple[int, ...]:
        return (*self.chat.text.answer(text), self.end_id)

    def continued(self, token_ids: Sequence[int], text: str) -> list[int] | None:
        """Ids to put after these for a further text; None where no ids would decode to both together."""
        return self.chat.text.continued(token_ids, text)

    def decode(self, token_ids: Sequence[int]) -> str:
        # The stop token is none of the text, also where it is an ordinary token such as a line break.
        ended = bool(token_ids) and token_ids[-1] in self.stop_ids
        return self.chat.text.decode(token_ids[:-1] if ended else token_ids)


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every eos of the generation config, the tokenizer's, and the template's end-of-turn."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    if configured is None:
        configured = model.config.get_text_config().eos_token_id
    ids = set(configured) if isinstance(configured, list | tuple) else {configured}
    ids |= {tokenizer.eos_token_id, _template_end(tokenizer)}
    stop = frozenset(i for i in ids if i is not None)
    if not stop:
        raise EngineError("the model defines no end-of-sequence token, so answers would never end")
    return stop


def _template_end(tokenizer: Any) -> int | None:
    """The special token the chat template puts right after an assistant's words.

    Special by its own flag: Gemma's and Phi's end-of-turn is not among `all_special_ids`.
    """
    if tokenizer.chat_template is None:
        return None
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "XBOUNDARYX"}]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except Exception:  # noqa: BLE001 - a template may refuse this chat; eos is then all we know
        return None
    after = text.rpartition("XBOUNDARYX")[2]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    added = tokenizer.added_tokens_decoder.get(ids[0]) if ids else None
    return ids[0] if added is not None and added.special else None


def _end_of_turn(tokenizer: Any, stop_ids: frozenset[int]) -> int:
    end = _template_end(tokenizer)
    if end is None:
        end = tokenizer.eos_token_id
    return int(end) if end is not None else min(stop_ids)
