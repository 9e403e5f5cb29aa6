"""What the guards saw, round by round: the rounds x tasks matrix, and the figures beside the main measure."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table

from selfrefine.gating.meanings import FIGURES, asks
from selfrefine.report.safe_text import text
from selfrefine.report.words import number
from selfrefine.runfolder.summaries import RoundSummary

_STYLES = {"ok": "", "warn": "yellow", "veto": "bold red"}


def watched_view(summaries: Sequence[RoundSummary]) -> list[RenderableType]:
    """Both tables and the warnings, as far as there is something to show."""
    matrix = _matrix(summaries)
    parts: list[RenderableType] = [] if matrix is None else [matrix, text(_LEGEND, "dim", newlines=True)]
    figures = _figures(summaries)
    if figures is not None:
        table, names = figures
        parts += [table, text(_explained(names), "dim", newlines=True)]
    for summary in summaries:
        for guard in summary.guards:
            if guard.state != "ok" and guard.reason:
                said = f"round {summary.index} {guard.state}: {guard.reason}"
                said += f"; {meant}" if (meant := asks(guard.name)) else ""
                parts.append(text(said, _STYLES[guard.state]))
    return parts


def _explained(names: Sequence[str]) -> str:
    """What the figures are; all warn where they change too much."""
    own = [f"{name}: {FIGURES[name]}" for name in names if name in FIGURES]
    return "\n".join([*own, "watched beside the measure: a large change warns, and a few may veto a round"])


_LEGEND = (
    "what the policy still knows after each round; –: not asked yet\n"
    "general: 24 general texts · round-NNN: tasks learnt in that round\n"
    "source: gate tasks\n"
    "accuracy, mean reward: higher is better · perplexity: lower is better"
)


def _matrix(summaries: Sequence[RoundSummary]) -> Table | None:
    """A line per round; what its policy makes of general prompts, of task sources and of earlier lessons."""
    columns: dict[str, dict[str, None]] = {}
    for name, key in ((name, key) for s in summaries for name, cell in s.probe.items() for key in cell):
        if key != "tasks":
            columns.setdefault(name, {})[key] = None
    if not columns:
        return None
    table = plain_table("retention")
    table.add_column("round")
    for name, keys in columns.items():
        table.add_column("\n".join((name, *keys)), justify="right", overflow="fold")
    for summary in summaries:
        cells = [
            " · ".join(_number(summary.probe[name].get(key)) for key in keys)
            if name in summary.probe
            else "–"
            for name, keys in columns.items()
        ]
        table.add_row(*map(text, (str(summary.index), *cells)))
    return table


def _figures(summaries: Sequence[RoundSummary]) -> tuple[Table, list[str]] | None:
    """A line per guard, a column per round, and the guards' names. What the matrix shows is left out."""
    shown = [s for s in summaries if s.guards]
    names = list(dict.fromkeys(g.name for s in shown for g in s.guards if not g.name.startswith(_IN_MATRIX)))
    if not names:
        return None
    table = plain_table("guards")
    table.add_column("round")
    for summary in shown:
        table.add_column(str(summary.index), justify="right")
    for name in names:
        row = [text(name)]
        for summary in shown:
            guard = next((one for one in summary.guards if one.name == name), None)
            row.append(
                text("" if guard is None else _number(guard.value), _STYLES[guard.state] if guard else "")
            )
        table.add_row(*row)
    return table, names


_IN_MATRIX = ("forgetting", "perplexity", "lessons")


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)


def plain_table(title: str | None = None) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        title=None if title is None else text(title, "bold"),
        title_justify="left",
    )
