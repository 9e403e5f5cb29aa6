"""From plain text to token ids: a special token's characters stay characters, and context is kept.

Some tokenizers (SentencePiece, as of Llama, Mistral and Gemma) put a `▁` before every text they are given.
Encoded in pieces, each piece would begin with a space that nobody wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

_ANCHOR = "\U0010fffd"
"""A private-use character that stands for the special token before a text."""
_BEFORE = ("\n", ".", "x")
"""Texts that keep the `▁` off what follows them, where a special token before it does not."""


class TextEncoder:
    """Encodes text with one tokenizer. Holds no model."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        known = tokenizer.added_tokens_decoder.values()
        names = {str(token) for token in known} | set(tokenizer.all_special_tokens)
        strings = sorted(filter(_marks, names), key=lambda name: (-len(name), name))
        self.special = re.compile("|".join(map(re.escape, strings))) if strings else None
        # One that takes the space after it along would change the text.
        self._marker = next((str(t) for t in known if t.special and not t.rstrip and _marks(str(t))), None)

    def _has_special(self, text: str) -> bool:
        return self.special is not None and self.special.search(text) is not None

    def decode(self, ids: Sequence[int]) -> str:
        """Special tokens are skipped. Spaces stay where they are, whatever the tokenizer would tidy up."""
        return str(
            self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def encode(self, text: str) -> list[int]:
        """Text at the beginning of a sequence. No special token is made of it."""
        if not self._has_special(text):
            return self.marked(text)
        if self._characters is None:
            return self._in_pieces(text)
        return list(self._characters.encode(text, add_special_tokens=False).ids)

    def marked(self, text: str) -> list[int]:
        """A template's text: the special tokens in it are tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def markers(self, text: str) -> Iterator[tuple[int, int, int]]:
        """The special tokens in a template's text: id, begin and end."""
        if self._characters is None:
            for match in self.special.finditer(text) if self.special else ():
                yield self.tokenizer.convert_tokens_to_ids(match.group(0)), match.start(), match.end()
            return
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if token in self.tokenizer.added_tokens_decoder:
                yield token, start, end

    def after_token(self, text: str) -> list[int]:
        """Text that follows a special token. No special token is made of it."""
        if not text:
            return []
        if self._marker is not None and not self._has_special(text):
            return self.marked(self._marker + text)[1:]
        if self._characters is None or _ANCHOR in text:
            return self.encode(text)
        return list(self._characters.encode(_ANCHOR + text, add_special_tokens=False).ids)[1:]

    def answer(self, text: str) -> list[int]:
        """Text as it stands in an answer: ids that decode to it, where the tokenizer has such."""
        # With a space before it for one that begins with a space: decoding takes one away.
        ways = (self.after_token, lambda text: self.after_token(f" {text}"), self.encode)
        found = self._first_that_decodes((), text, text, ways)
        return self.after_token(text) if found is None else found

    def continued(self, ids: Sequence[int], text: str) -> list[int] | None:
        """Ids to put after `ids` for a further text; None where no ids would decode to both together."""
        wanted = self.decode(ids) + text
        ways: list[Callable[[str], list[int] | None]] = [self.after_token]
        ways += [partial(self._behind, before) for before in _BEFORE]
        return self._first_that_decodes(ids, text, wanted, ways)

    def _first_that_decodes(
        self, before: Sequence[int], text: str, wanted: str, ways: Sequence[Callable[[str], list[int] | None]]
    ) -> list[int] | None:
        for way in ways:
            ids = way(text)
            if ids is not None and self.decode([*before, *ids]) == wanted:
                return ids
        return None

    def _behind(self, before: str, text: str) -> list[int] | None:
        """The ids of `text` right behind another text, if that one keeps its own."""
        head, both = self.encode(before), self.encode(before + text)
        return both[len(head) :] if both[: len(head)] == head else None

    @cached_property
    def _characters(self) -> Any:
        """The tokenizer without its special tokens, but for the anchor; None where it is not a fast one.

        Their names leave the vocabulary as well, where a Unigram or word-level model would find them. All
        other ids stay.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        from tokenizers import AddedToken, Tokenizer

        said = json.loads(backend.to_str())
        names = {token["content"] for token in said["added_tokens"] if _marks(token["content"])}
        spaces = [token for token in said["added_tokens"] if token["content"] not in names]
        said |= {"added_tokens": spaces, "post_processor": None, "truncation": None, "padding": None}
        _forget(said["model"], names)
        made = Tokenizer.from_str(json.dumps(said))
        made.add_special_tokens([AddedToken(_ANCHOR, normalized=False)])
        return made

    def _in_pieces(self, text: str) -> list[int]:
        """Cutting such a string after its first character is enough: neither half is the token any more."""
        assert self.special is not None
        ids: list[int] = []
        position = 0
        # Searched anew from each cut: what is left of one special token may begin with a shorter one.
        while match := self.special.search(text, position):
            cut = match.start() + 1
            ids += self.marked(text[position:cut])
            position = cut
        return ids + self.marked(text[position:])


def _marks(token: str) -> bool:
    """False for a run of spaces or line breaks, which some vocabularies add and which is text."""
    return bool(token.replace("▁", "").strip())


def _forget(model: dict[str, Any], names: set[str]) -> None:
    """Rename the entries of a tokenizer's vocabulary that stand for special tokens."""
    made = {
        "".join(pair) if isinstance(pair, list) else pair.replace(" ", "") for pair in model.get("merges", ())
    }

    def renamed(name: str, at: int) -> str:
        hide = name in names and name not in made and len(name) > 1
        return f"{_ANCHOR}{at}" if hide else name

    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [[renamed(name, at), score] for at, (name, score) in enumerate(vocabulary)]
    else:
        unknown = model.get("unk_token")
        if isinstance(unknown, str) and unknown in vocabulary:
            model["unk_token"] = renamed(unknown, vocabulary[unknown])
        model["vocab"] = {renamed(name, at): at for name, at in vocabulary.items()}
