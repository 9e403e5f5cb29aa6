"""A reflection for a person: the weaknesses as a table, then what to try."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from selfrefine.reflection.findings import Cell, Plan, Weaknesses
from selfrefine.reflection.plan import sentence
from selfrefine.report.guards import plain_table
from selfrefine.report.safe_text import text
from selfrefine.report.words import percent, three, weaknesses_line

_MOST = 8


def reflection_view(found: Weaknesses, made: Plan | None) -> RenderableType:
    """`made`: the plan of the next round, where one was made. Fits 80 columns."""
    parts: list[RenderableType] = []
    for split, cells in (("gate", found.gate), ("training", found.train)):
        if cells:
            parts += [_table(f"{split} tasks", cells, found), Text()]
    parts += [text(said) for said in (weaknesses_line(found), *found.notes) if said]
    if made is None:
        return Group(*parts)
    if made.outcomes:
        parts += [Text(), Text("Earlier plans", style="bold"), *(text(sentence(o)) for o in made.outcomes)]
    parts += [Text(), Text(f"What round {made.round} could try", style="bold")]
    parts += [text(f"{action.kind}: {action.reason}") for action in made.actions]
    if not made.actions:
        parts.append(Text("nothing that follows from these figures"))
    parts += [text(f"not {kind}: {why}", style="dim") for kind, why in made.dropped.items()]
    return Group(*parts)


def _table(title: str, cells: tuple[Cell, ...], found: Weaknesses) -> Table:
    """The slices that are weak and the tags first, then how answers fail."""
    table = plain_table(title)
    for name in ("weakness", "mean", "95 % interval", "support", "rest", "q"):
        table.add_column(name, justify="left" if name == "weakness" else "right", overflow="fold")
    slices = [cell for cell in cells if cell.slice is not None]
    slices.sort(key=lambda cell: (cell.name not in found.heaviest, cell.q_value is None, cell.q_value or 1.0))
    for cell in slices[:_MOST]:
        weak = cell.q_value is not None and cell.q_value < found.level
        table.add_row(
            text(cell.name, style="bold" if weak else ""),
            three(cell.rate),
            _ends(cell),
            f"{cell.n:,}",
            three(cell.rest),
            "–" if cell.q_value is None else f"{cell.q_value:.3f}",
        )
    for cell in cells:
        if cell.slice is None and cell.rate:
            table.add_row(text(cell.name), percent(cell.rate), _shares(cell), f"{cell.n:,}", "", "")
    return table


def _ends(cell: Cell) -> str:
    return "–" if cell.lo is None or cell.hi is None else f"{cell.lo:.3f}–{cell.hi:.3f}"


def _shares(cell: Cell) -> str:
    return "–" if cell.lo is None or cell.hi is None else f"{percent(cell.lo)}–{percent(cell.hi)}"
