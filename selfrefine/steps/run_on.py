"""Answers that never end: a base model goes on after its answer until it is cut off, or to a stop text."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from selfrefine.records import Sample

NEARLY_ALL = 0.9
"""Share of the answers that must be cut off before their not ending is the likely cause."""
_ENDS = {"\n": re.compile(r"[^\S\n]*\S[^\n]*\n"), ".": re.compile(r"\s*[^\s.][^.]*\.\s")}
"""A stop text to where it ends something visible: not the line break or the point that a text begins with."""


def passed(rows: Iterable[Sample]) -> dict[str, int]:
    """By stop text, the cut-off answers that went on for at least as long again after they had reached it."""
    found: Counter[str] = Counter()
    for row in rows:
        if row.finish_reason != "length":
            continue
        for stop, pattern in _ENDS.items():
            match = pattern.match(row.text)
            found[stop] += match is not None and 2 * match.end() <= len(row.text)
    return dict(found)


def stops(
    answered: int, cut: int, seen: Mapping[str, int], template: bool | None, given: Collection[str] = ()
) -> tuple[str, ...]:
    """The stop texts to suggest, none where cut-off answers have another cause.

    `template`: has the model a chat template? None: not known. A chat model that is cut off after a line
    break was probably still at work, so for one only the line break counts. `given`: the stop texts that were
    set already; what was suggested once and did not help is not suggested again.
    """
    if not answered or cut < NEARLY_ALL * answered:
        return ()
    usual = [stop for stop in _ENDS if 2 * seen.get(stop, 0) > cut and stop not in given]
    if template or (template is None and "\n" not in usual):
        return ("\n",) if "\n" in usual else ()
    return tuple(usual) or (() if "\n" in given else ("\n",))


def value(texts: Iterable[str], given: Iterable[str] = ()) -> str:
    """The setting as `--set` and TOML read it, with those `given` already: `generate.stop=["\\n", "."]`."""
    return f"generate.stop={json.dumps([*given, *texts], ensure_ascii=False)}"
