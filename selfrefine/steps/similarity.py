"""How near two texts are, word by word: does a revision change its draft, or answer again?"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from selfrefine.rewards.scripts import unspaced

_WORD = re.compile(r"\w+|[^\w\s]")


def similarity(before: str, after: str) -> float:
    """Share of the words of both that stand in both in the same order, in [0, 1]; 1 for two empty texts.

    Twice the matching words over all words, case and white space aside; of a text without spaces between
    words its characters. 1 - similarity is the distance that revisions are told by.

    Source: Ratcliff & Metzener 1988, "Pattern matching: the gestalt approach" (Python's difflib).
    """
    a, b = (_words(text.casefold()) for text in (before, after))
    return SequenceMatcher(None, a, b, autojunk=False).ratio()


def _words(text: str) -> list[str]:
    return [c for c in text if not c.isspace()] if unspaced(text) else _WORD.findall(text)
