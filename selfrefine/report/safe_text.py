"""Text that a model or a file wrote, made harmless for a terminal.

Two dangers, one door. Control characters act: CSI moves the cursor over what was printed, OSC 8 makes a
link, bidi overrides reorder a line (CVE-2021-42574), zero-width characters hide. And `[/red]` is markup to
rich. `safe_text` shows the characters instead of sending them; `text` puts the result in a `rich.text.Text`,
which never parses markup. Report functions use `text` for every string that is not a literal of their own.
"""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Controls (C0, DEL, C1), format characters (bidi, zero-width, tags), lone surrogates, U+2028 and U+2029."""

_BLANK_LETTERS = frozenset({0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0})
"""Not format characters by category, invisible all the same."""


class _Visible(dict[int, str]):
    """A `str.translate` table that fills itself as characters are met."""

    def __missing__(self, code: int) -> str:
        shown = chr(code)
        if code < 0x20:
            shown = chr(0x2400 + code)
        elif code == 0x7F:
            shown = "␡"
        elif code in _BLANK_LETTERS or unicodedata.category(shown) in _CATEGORIES:
            shown = f"‹U+{code:04X}›"
        self[code] = shown
        return shown


_ONE_LINE = _Visible()
_LINES = _Visible({0x0A: "\n"})


def safe_text(text: str, limit: int | None = None, *, newlines: bool = False) -> str:
    """`text` with everything that could act or hide shown instead: ESC as ␛, U+202E as ‹U+202E›.

    limit: at most so many characters (one or more); what is cut off is marked by a final "…".
    newlines: line feeds stay what they are (a view of several lines) instead of becoming ␊.
    """
    table = _LINES if newlines else _ONE_LINE
    if limit is None:
        return text.translate(table)
    shown = text[: limit + 1].translate(table)  # cut first: a megabyte is not translated for 60 characters
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def safe_json(data: str) -> str:
    """JSON for a terminal: the same values, with everything that could act or hide written as \\uXXXX.

    Such characters stand inside strings only, where JSON takes an escape for any character.
    """
    return data.translate(_ESCAPED)


class _Escaped(dict[int, str]):
    def __missing__(self, code: int) -> str:
        shown = chr(code)
        if code != 0x0A and (code in _BLANK_LETTERS or unicodedata.category(shown) in _CATEGORIES):
            shown = json.dumps(shown)[1:-1]
        self[code] = shown
        return shown


_ESCAPED = _Escaped()


def text(value: str, style: str = "", limit: int | None = None, *, newlines: bool = False) -> Text:
    """`safe_text` as a rich Text: markup and emoji codes in it are just characters."""
    from rich.text import Text

    return Text(safe_text(value, limit, newlines=newlines), style=style)
