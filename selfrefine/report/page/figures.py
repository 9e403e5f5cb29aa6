"""What the page is made of: sections of figures, each a sentence, perhaps a chart, and a table of the same.

The sentence and the table are the chart's text alternative, so none of them may be left out with a chart.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

Kind = Literal["", "text", "sentence"]
"""How a column is set: a figure on the right, a word on the left, a long text that may wrap."""


class Table(Struct, frozen=True, kw_only=True):
    """Cells are text, ready to read. `kinds` are the columns' kinds, figures where it is shorter."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    kinds: tuple[Kind, ...] = ("text",)

    def kind(self, column: int) -> Kind:
        return self.kinds[column] if column < len(self.kinds) else ""


class Figure(Struct, frozen=True, kw_only=True):
    """One card of the page."""

    id: str
    """Of the HTML element; unique within a run."""
    title: str
    finding: str
    """A sentence or two: what the chart shows, with its figures."""
    chart: dict[str, Any] | None = None
    """A Vega-Lite specification of `charts`."""
    table: Table | None = None
    open: bool = False
    """The table stands open, as where it is the figure."""
    wide: bool = False
    """It takes the whole width."""
    keep: bool = False
    """The chart keeps its size and scrolls, as one with many columns."""
    code: tuple[str, ...] = ()
    """Blocks to copy: commands."""
    links: tuple[tuple[str, str], ...] = ()
    """What an answer is an example of, and the row's id: it is opened in the browser of samples."""
    notes: tuple[str, ...] = ()
    """What ought to be noticed: alarms, warnings."""
    alone: bool = False
    """No other card stands beside it: the chart goes beside its words. Set by `build`."""
    svg: str = ""
    """The chart as it was drawn; filled in by `build`."""


class Section(Struct, frozen=True, kw_only=True):
    id: str
    title: str
    figures: tuple[Figure, ...]
    lead: str = ""


class Headline(Struct, frozen=True, kw_only=True):
    """What a run came to."""

    tone: Literal["better", "worse", "open"]
    figure: str
    """The gain, or a word where there is none."""
    beside: str = ""
    """Its interval."""
    says: str
    means: str = ""
    strip: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
