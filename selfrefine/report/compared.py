"""`compare` for a terminal and as Markdown: the same cells, in two tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from selfrefine.gating.versus import Versus, Versuses
from selfrefine.report.safe_text import safe_text, text
from selfrefine.report.words import number, with_interval
from selfrefine.stats import Difference
from selfrefine.words import count

_HEADINGS = ("run", "before → after", "difference [95 %]", "p", "n", "ties", "unscored")


def compared_view(found: Versuses) -> RenderableType:
    """For a person."""
    parts: list[RenderableType] = []
    for title, rows in _tables(found):
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, heading in enumerate(_HEADINGS):
            table.add_column(heading, justify="right" if i > 2 else "left", overflow="fold", no_wrap=i > 0)
        for row in rows:
            table.add_row(*map(text, row))
        parts.append(table)
    return Group(*parts, *(text(note) for note in _notes(found)))


def compared_markdown(found: Versuses) -> str:
    """For a page."""
    lines: list[str] = []
    for title, rows in _tables(found):
        lines += [f"**{title}**", "", _line(_HEADINGS), _line(["---"] * len(_HEADINGS))]
        lines += [_line(row) for row in rows] + [""]
    return "\n".join([*lines, *_notes(found), ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(safe_text(cell).replace("|", "\\|") for cell in cells) + " |"


def _tables(found: Versuses) -> list[tuple[str, list[list[str]]]]:
    measure = " + ".join(found.measure)
    tables = [(f"test split, {measure}: end against start of each run", [_cells(v) for v in found.gains])]
    if found.pairs:
        title = f"test split, {measure}: end against the end of {found.pairs[0].against}"
        tables.append((title, [_cells(v) for v in found.pairs]))
    return tables


def _cells(one: Versus) -> list[str]:
    found = one.found
    if found.before is None or found.after is None or found.p_value is None:
        return [one.run, "–", "–", "–", *map(number, (found.n, found.ties, found.unscored))]
    change = Difference(mean=found.difference, lo=found.lo, hi=found.hi, n=found.n)
    p_value = "<0.0001" if found.p_value < 1e-4 else f"{found.p_value:.4f}"
    means = f"{found.before:.3f} → {found.after:.3f}"
    counts = map(number, (found.n, found.ties, found.unscored))
    return [one.run, means, with_interval(change), p_value, *counts]


def _notes(found: Versuses) -> list[str]:
    tests = sorted({one.found.test for one in (*found.gains, *found.pairs)})
    notes = [
        "paired by task; p is two-sided, not corrected for the number of rows",
        f"test: {', '.join(tests)}",
    ]
    notes += [
        f"{one.run}: {count(one.unshared, 'test task')} in only one of the two runs, not compared"
        for one in found.pairs
        if one.unshared
    ]
    return notes
