"""What was watched beside the main measure: guards, what the policy still knows, alarms."""

from __future__ import annotations

from selfrefine.report.page import charts
from selfrefine.report.page.figures import Figure, Section, Table
from selfrefine.report.page.read import Told
from selfrefine.report.words import number
from selfrefine.words import count

_FIGURES = ("accuracy", "mean", "perplexity")


def section(told: Told, key: str) -> Section | None:
    figures = [forgetting(told, key), _guards(told, key), alarms(told, key)]
    found = tuple(one for one in figures if one is not None)
    return Section(id=f"{key}-watched", title="What was watched", figures=found) if found else None


def forgetting(told: Told, key: str) -> Figure | None:
    """Rounds × what was asked again: figures from 0 to 1 are drawn, perplexities stand in the table."""
    probes = [(one.index, one.probe) for one in told.rounds if one.probe]
    columns = list(
        dict.fromkeys(
            (name, what)
            for _, probe in probes
            for name, cell in probe.items()
            for what in cell
            if what in _FIGURES
        )
    )
    if not columns:
        return None
    drawn = [column for column in columns if column[1] != "perplexity"]
    values = {
        (k, column): probe.get(column[0], {}).get(column[1]) for k, probe in probes for column in columns
    }
    named = charts.labels(f"{name}, {what}" for name, what in drawn)
    cells = [
        {
            "row": named[f"{name}, {what}"],
            "column": str(k),
            "value": values[k, (name, what)],
            "text": "–" if (value := values[k, (name, what)]) is None else f"{value:.2f}",
            "tip": charts.label(
                f"{name}, {what}, round {k}: {'–' if value is None else f'{value:.3f}'}", 160
            ),
        }
        for name, what in drawn
        for k, _ in probes
    ]
    chart, wide = (None, False)
    if drawn:
        chart, wide = charts.heat(cells, list(named.values()), [str(k) for k, _ in probes], "after round")
    return Figure(
        id=f"{key}-forgetting",
        title="What it still knows",
        finding=forgetting_words([(k, probe) for k, probe in probes])
        + " A row is asked again after every round: general texts, and tasks that an earlier round learnt.",
        chart=chart,
        keep=wide,
        open=chart is None,
        table=Table(
            headings=("after round", *(f"{name}, {what}" for name, what in columns)),
            rows=tuple(
                (
                    str(k),
                    *("–" if (value := values[k, column]) is None else number(value) for column in columns),
                )
                for k, _ in probes
            ),
        ),
    )


def forgetting_words(probes: list[tuple[int, dict[str, dict[str, float | None]]]]) -> str:
    """General knowledge, first against last."""
    known = [
        (k, value) for k, probe in probes if (value := probe.get("general", {}).get("accuracy")) is not None
    ]
    if len(known) < 2:
        return "General knowledge was measured once." if known else "General knowledge was not measured."
    (_, first), (last, now) = known[0], known[-1]
    change = "the same as" if abs(now - first) < 5e-4 else "more than" if now > first else "less than"
    moved = f"{first:.3f} → {now:.3f}"
    return f"After round {last} the policy knows {change} at the start of the general texts: {moved}."


def _guards(told: Told, key: str) -> Figure | None:
    shown = [one for one in told.rounds if one.guards]
    names = list(dict.fromkeys(guard.name for one in shown for guard in one.guards))
    if not names:
        return None
    rows = []
    for name in names:
        cells = [next((g for g in one.guards if g.name == name), None) for one in shown]
        states = [g.state for g in cells if g is not None]
        worst = next((state for state in ("veto", "warn") if state in states), "ok")
        rows.append((name, worst, *("–" if g is None or g.value is None else number(g.value) for g in cells)))
    said = tuple(
        f"Round {one.index}, {guard.state}: {guard.reason}"
        for one in shown
        for guard in one.guards
        if guard.state != "ok" and guard.reason
    )
    bad = [row[0] for row in rows if row[1] != "ok"]
    finding = (
        f"{', '.join(bad)} passed a limit." if bad else f"None of the {len(names)} guards passed its limit."
    )
    return Figure(
        id=f"{key}-guards",
        title="Guards",
        finding=finding,
        open=True,
        table=Table(
            headings=("guard", "state", *(f"round {one.index}" for one in shown)),
            rows=tuple(rows),
            kinds=("text", "text"),
        ),
        notes=said,
    )


def alarms(told: Told, key: str) -> Figure | None:
    """Alarms and warnings from the events."""
    rows = []
    for event in told.events:
        where = str(event.get("round", "–"))
        if event.get("kind") == "alarm":
            said = (
                f"{event.get('alarm')} {_figure(event.get('value'))}, threshold {_figure(event.get('limit'))}"
            )
            rows.append((where, str(event.get("stage", "–")), said))
        elif event.get("kind") == "warning":
            rows.append((where, "gate", str(event.get("reason"))))
        elif event.get("kind") == "drift":
            differs = event.get("differs")
            rows.append(
                (
                    where,
                    "settings",
                    "; ".join(map(str, differs)) if isinstance(differs, list) else str(differs),
                )
            )
        elif event.get("kind") == "plan-change":
            rows.append((where, "memory", "memory ran out: a token budget was halved"))
        elif event.get("kind") == "history-lost":
            rows.append((where, "events", "the earlier events were lost"))
    if not rows:
        return None
    return Figure(
        id=f"{key}-alarms",
        title="Alarms and warnings",
        finding=f"{count(len(rows), 'alarm or warning', 'alarms and warnings')} while it ran.",
        open=True,
        wide=True,
        table=Table(
            headings=("round", "stage", "what"), rows=tuple(rows[:200]), kinds=("text", "text", "sentence")
        ),
    )


def _figure(value: object) -> str:
    return number(value) if isinstance(value, int | float) else "–"
