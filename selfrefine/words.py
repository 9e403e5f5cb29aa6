"""What an error says of a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(word: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, if one is close."""
    return next(iter(difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)), None)


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error sentence: what was probably meant, and what there is."""
    choices = sorted(known)
    meant = near(word, choices)
    return f"{f'; did you mean {meant!r}?' if meant else ''} (known: {', '.join(choices) or 'none'})"
