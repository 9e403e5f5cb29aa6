"""Round by round: what was decided and why, the learning curve, what it cost."""

from __future__ import annotations

from typing import Any

from selfrefine.report.page import charts
from selfrefine.report.page.figures import Figure, Section, Table
from selfrefine.report.page.read import Told
from selfrefine.report.tables import round_rows
from selfrefine.report.words import compact, duration, three, with_interval
from selfrefine.runfolder.summaries import SAID, RoundSummary
from selfrefine.stats import Interval
from selfrefine.words import count


def section(told: Told, key: str) -> Section | None:
    """None of a run without a committed round."""
    if not told.rounds:
        return None
    figures = [_decisions(told, key), learning_curve(told, key), cost(told, key)]
    return Section(
        id=f"{key}-rounds",
        title="Round by round",
        lead=lead(told),
        figures=tuple(one for one in figures if one is not None),
    )


def lead(told: Told) -> str:
    """What a decision means in this run."""
    if told.manifest.config.get("gate", {}).get("mode") == "off":
        return "The gate is off: every round is kept, whatever it measures."
    return (
        "A round's candidate is kept when it does better on the gate tasks than the accepted policy, and "
        "rolled back when it does not. When the tasks cannot tell, it is undecided: training goes on from it."
    )


def _decisions(told: Told, key: str) -> Figure:
    rows = []
    for row, summary in zip(round_rows(told.rounds, told.seconds), told.rounds, strict=True):
        change = (
            "–"
            if summary.gate is None or summary.gate.difference is None
            else f"{summary.gate.difference:+.3f}"
        )
        why = summary.gate.reason if summary.gate is not None else _no_gate(summary)
        rows.append((row.label, row.decision or "–", with_interval(row.gate), change, why))
    decided = [one.gate.outcome for one in told.rounds if one.gate is not None]
    said = [f"{decided.count(what)} {word}" for what, word in SAID.items() if what in decided]
    finding = (
        f"{count(len(decided), 'round')} decided: {', '.join(said)}."
        if decided
        else "No round was decided yet."
    )
    return Figure(
        id=f"{key}-decisions",
        title="Decisions",
        finding=finding,
        wide=True,
        open=True,
        table=Table(
            headings=("round", "decision", "gate mean [95 %]", "change", "why"),
            rows=tuple(rows),
            kinds=("text", "text", "", "", "sentence"),
        ),
    )


def _no_gate(summary: RoundSummary) -> str:
    return "the starting policy, measured" if summary.index == 0 else "no gate in this round"


def _point(x: str, series: str, told: Interval) -> dict[str, Any]:
    return {
        "x": x,
        "series": series,
        "mean": told.mean,
        "lo": told.mean if told.lo is None else told.lo,
        "hi": told.mean if told.hi is None else told.hi,
        "tip": f"round {x}, {series} tasks: {with_interval(told)}",
    }


def learning_curve(told: Told, key: str) -> Figure | None:
    """Each candidate on the gate tasks, the starting and the accepted policy on the test tasks."""
    gate = [(str(one.index), one.measures["gate"]) for one in told.rounds if "gate" in one.measures]
    test = [(str(one.index), one.measures["test"]) for one in told.rounds if "test" in one.measures]
    if told.final is not None:
        test.append(("end", told.final.test))
    gate, test = ([(x, one) for x, one in side if one.mean is not None] for side in (gate, test))
    if not gate and not test:
        return None
    points = [_point(x, "gate", one) for x, one in gate] + [_point(x, "test", one) for x, one in test]
    names = [name for name, side in (("gate", gate), ("test", test)) if side]
    order = list(dict.fromkeys([*(str(one.index) for one in told.rounds), *(x for x, _ in test)]))
    ends = [
        f"{name} {side[0][1].mean:.3f} → {side[-1][1].mean:.3f}"
        for name, side in (("gate", gate), ("test", test))
        if len(side) > 1
    ]
    finding = (
        f"From the first to the last measurement: {', '.join(ends)}. " if ends else "Measured once so far. "
    ) + ("Bars are 95 % intervals; a gate point is a round's candidate, kept or not.")
    return Figure(
        id=f"{key}-curve",
        title="Learning curve",
        finding=finding,
        chart=charts.with_intervals(
            points, names, "round", f"mean reward ({charts.label(told.measure, 24)})", order
        ),
        table=Table(
            headings=("round", "tasks", "mean", "low", "high", "n"),
            rows=tuple(
                (x, name, f"{one.mean:.3f}", three(one.lo), three(one.hi), f"{one.n:,}")
                for name, side in (("gate", gate), ("test", test))
                for x, one in side
            ),
            kinds=("text", "text"),
        ),
    )


def cost(told: Told, key: str) -> Figure | None:
    """Tokens by what they were for, and minutes."""
    parts = ("to learn from", "to measure", "trained on")
    points, rows = [], []
    for one in told.rounds:
        spent = one.cost
        values = (spent.tokens - spent.measured_tokens, spent.measured_tokens, spent.trained_tokens)
        seconds = told.seconds.get(one.index)
        rows.append(
            (
                str(one.index),
                *(f"{value:,}" for value in values),
                "–" if seconds is None else duration(seconds),
            )
        )
        points += [
            {
                "row": str(one.index),
                "part": part,
                "place": place,
                "value": value,
                "tip": f"round {one.index}: {value:,} tokens {part}",
            }
            for place, (part, value) in enumerate(zip(parts, values, strict=True))
        ]
    total = sum(one.cost.tokens for one in told.rounds)
    measured = sum(one.cost.measured_tokens for one in told.rounds)
    trained = sum(one.cost.trained_tokens for one in told.rounds)
    if not total and not trained:
        return None
    share = f", {100 * measured / total:.0f} % of them to measure" if total else ""
    time = f" It took {duration(sum(told.seconds.values()))}." if told.seconds else ""
    return Figure(
        id=f"{key}-cost",
        title="Cost",
        finding=f"{compact(total)} tokens were sampled{share}; {compact(trained)} were trained on.{time}",
        chart=charts.stacked(points, parts, charts.COLOURS[:3], "round", "tokens", share=False),
        table=Table(headings=("round", *parts, "time"), rows=tuple(rows)),
    )
