"""The training curves: loss, learning rate and gradient norm, step by step."""

from __future__ import annotations

from selfrefine.report.page import charts
from selfrefine.report.page.facts_answers import some
from selfrefine.report.page.figures import Figure, Section, Table
from selfrefine.report.page.read import Told
from selfrefine.report.words import number
from selfrefine.words import count

MOST_LINES = 6
_CURVES = (
    ("loss", "Loss", "loss"),
    ("lr", "Learning rate", "learning rate"),
    ("grad_norm", "Gradient norm", "norm"),
)


def section(told: Told, key: str) -> Section | None:
    """None where nothing was trained."""
    logs = {k: steps for k, steps in sorted(told.steps.items()) if steps}
    if not logs:
        return None
    shown = some(list(logs), MOST_LINES)
    figures = []
    for field, title, axis in _CURVES:
        points = [
            {
                "x": one.step,
                "series": f"round {k}",
                "y": value,
                "tip": f"round {k}, step {one.step:g}: {number(value)}",
            }
            for k in shown
            for one in logs[k]
            if (value := getattr(one, field)) is not None
        ]
        if not points:
            continue
        rows = []
        for k, steps in logs.items():
            values = [value for one in steps if (value := getattr(one, field)) is not None]
            if values:
                cells = (values[0], values[-1], min(values), max(values))
                rows.append((str(k), *(number(value) for value in cells)))
        first, last = rows[-1][1], rows[-1][2]
        figures.append(
            Figure(
                id=f"{key}-{field.replace('_', '-')}",
                title=title,
                finding=f"In round {rows[-1][0]}: {first} at the first step, {last} at the last.",
                chart=charts.lines(
                    points, [f"round {k}" for k in shown], "step of the round", axis, unit=False
                ),
                table=Table(headings=("round", "first", "last", "lowest", "highest"), rows=tuple(rows)),
            )
        )
    lead = f"{count(len(logs), 'round')} trained."
    if len(shown) < len(logs):
        lead += f" {len(shown)} of them are drawn, the first and the last among them; the tables have all."
    return (
        Section(id=f"{key}-training", title="Training", lead=lead, figures=tuple(figures))
        if figures
        else None
    )
