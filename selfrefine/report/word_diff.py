"""Two texts word by word: what stayed, what went, what came. For the terminal and for the page."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal

from selfrefine.rewards.scripts import unspaced

Part = tuple[Literal["same", "gone", "new"], str]


def word_diff(before: str, after: str) -> list[Part]:
    """Stretches of both texts in reading order; "same" and "gone" give `before`, "same" and "new" `after`.

    Words are compared with the white space that follows them, so both texts come back to the letter. Text
    without spaces between words is compared letter by letter.
    """
    letters = unspaced(before) or unspaced(after)
    a, b = (list(one) if letters else re.findall(r"\s+|\S+\s*", one) for one in (before, after))
    parts: list[Part] = []
    for kind, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(("same", "".join(a[i:j])))
            continue
        parts += [("gone", "".join(a[i:j]))] if i < j else []
        parts += [("new", "".join(b[k:m]))] if k < m else []
    return parts
