"""Scripts without spaces between words: split at spaces, a whole sentence is one word."""

from __future__ import annotations

import re

SHARE = 0.3
_HAN = re.compile(
    r"[\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\U00020000-\U0003ffff]"
)
_OTHERS = re.compile(
    r"[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    # Thai, Lao, Tibetan, Burmese, Khmer
    r"\u0e00-\u0e7f\u0e80-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff]"
)


def unspaced(text: str, *, han_is_split: bool = False) -> bool:
    """Whether SHARE of the letters or more are of such a script; `han_is_split`: Chinese is none."""
    if text.isascii():
        return False
    han, others = len(_HAN.findall(text)), len(_OTHERS.findall(text))
    letters = han + others + sum(c.isalpha() for c in _OTHERS.sub("", _HAN.sub("", text)))
    left = others if han_is_split else han + others
    return bool(left) and left >= SHARE * letters
