"""Where the model is weak and where it gained: by the tasks' tags, and task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selfrefine.reflection.changes import Flips, Means, TagGain, telling
from selfrefine.report.page import charts
from selfrefine.report.page.figures import Figure, Section, Table
from selfrefine.report.page.read import Told
from selfrefine.report.words import with_interval
from selfrefine.words import count

MOST_ROWS = 24
Tag = tuple[str, str]


def section(told: Told, key: str) -> Section | None:
    figures = [_gain_by_tag(told, key), _flips(told, key), heat_map(told, key)]
    found = tuple(one for one in figures if one is not None)
    return Section(id=f"{key}-tags", title="What changed, and where", figures=found) if found else None


def _gain_by_tag(told: Told, key: str) -> Figure | None:
    found = [one for one in told.gain.by_tag if one.gain.mean is not None] if told.gain else []
    if not found:
        return None
    shown = sorted(found, key=lambda one: (one.tag, -(one.gain.mean or 0)))[:MOST_ROWS]
    named = charts.tag_labels((one.tag, one.value) for one in shown)
    points = []
    for one in shown:
        gain = one.gain
        points.append(
            {
                "row": named[one.tag, one.value],
                "mean": gain.mean,
                "lo": gain.mean if gain.lo is None else gain.lo,
                "hi": gain.mean if gain.hi is None else gain.hi,
                "tip": charts.label(
                    f"{one.tag} = {one.value}: {with_interval(gain)}, {count(one.tasks, 'task')}", 160
                ),
            }
        )
    rows = list(dict.fromkeys(str(point["row"]) for point in points))
    finding = f"{gains_in_words(found)} Paired by test task, 95 % intervals, not corrected for their number."
    if len(found) > MOST_ROWS:
        finding += f" The first {MOST_ROWS} of {len(found)} are drawn; the table has all."
    return Figure(
        id=f"{key}-gain-by-tag",
        title="Gain by tag",
        finding=finding,
        chart=charts.ranges(points, rows, "gain in mean reward", signed=True),
        table=Table(
            headings=("tag", "value", "tasks", "start", "end", "gain [95 %]"),
            rows=tuple(
                (
                    one.tag,
                    one.value,
                    f"{one.tasks:,}",
                    f"{one.before:.3f}",
                    f"{one.after:.3f}",
                    with_interval(one.gain),
                )
                for one in found
            ),
            kinds=("text", "text"),
        ),
    )


def gains_in_words(found: Sequence[TagGain]) -> str:
    """Where the gain is largest and smallest, of the tags that enough tasks have to tell (an interval)."""
    found = [one for one in found if one.gain.lo is not None] or found
    best, worst = (pick(found, key=lambda one: one.gain.mean or 0.0) for pick in (max, min))
    if (best.gain.mean or 0.0) - (worst.gain.mean or 0.0) < 5e-4:
        return f"The gain is the same for every tag: {best.gain.mean:+.3f}."
    words = [f"{one.tag} = {one.value} ({one.before:.3f} → {one.after:.3f})" for one in (best, worst)]
    return f"The gain is largest where {words[0]}, smallest where {words[1]}."


def _flips(told: Told, key: str) -> Figure | None:
    if told.gain is None:
        return None
    found = told.gain.flips
    parts = (
        ("stayed right", found.stayed_right, "var(--c3)"),
        ("became right", found.became_right, "var(--c1)"),
        ("became wrong", found.became_wrong, "var(--c2)"),
        ("stayed wrong", found.stayed_wrong, "var(--grey)"),
        ("no score", found.unscored, "var(--heat-none)"),
    )
    shown = [(name, value, colour) for name, value, colour in parts if value]
    if not shown:
        return None
    points = [
        {
            "row": name,
            "part": name,
            "place": place,
            "value": value,
            "tip": f"{name}: {count(value, 'task')}",
        }
        for place, (name, value, _) in enumerate(shown)
    ]
    return Figure(
        id=f"{key}-flips",
        title="Tasks that flipped",
        finding=flips_in_words(found),
        chart=charts.stacked(
            points,
            [s[0] for s in shown],
            [s[2] for s in shown],
            None,
            "test tasks",
            share=False,
            legend=False,
        ),
        table=Table(
            headings=("test tasks", "number"), rows=tuple((name, f"{value:,}") for name, value, _ in parts)
        ),
    )


def flips_in_words(found: Flips) -> str:
    """How many answers became right, and what that cost."""
    before = found.stayed_right + found.became_wrong
    lost = (
        f"{found.became_wrong:,} of the {before:,} right at the start became wrong"
        if before
        else "none was right before"
    )
    return f"{count(found.became_right, 'test task')} became right; {lost}. Right is a mean reward of 1."


def heat_map(told: Told, key: str) -> Figure | None:
    """Tags × rounds: the mean reward of each round's candidate on the gate tasks that carry a tag."""
    cells = cells_of(told.gate, told.cuts)
    if not cells:
        return None
    rounds = sorted(told.gate)
    last = rounds[-1]
    latest = {tag: mean for tag in cells if (mean := cells[tag].get(last, (None, 0))[0]) is not None}
    chosen = sorted(sorted(cells, key=lambda tag: latest.get(tag, 2.0))[:MOST_ROWS])
    named = charts.tag_labels(chosen)
    drawn = []
    for tag in chosen:
        for k in rounds:
            mean, n = cells[tag].get(k, (None, 0))
            told_as = "no score" if mean is None else f"{mean:.3f}"
            drawn.append(
                {
                    "row": named[tag],
                    "column": str(k),
                    "value": mean,
                    "text": "–" if mean is None else f"{mean:.2f}",
                    "tip": charts.label(
                        f"{tag[0]} = {tag[1]}, round {k}: {told_as}, {count(n, 'task')}", 160
                    ),
                }
            )
    weakest = min(latest, key=lambda tag: latest[tag]) if latest else None
    finding = (
        ""
        if weakest is None
        else f"Weakest after round {last}: {weakest[0]} = {weakest[1]} with a mean reward of "
        f"{latest[weakest]:.3f} over {count(cells[weakest][last][1], 'task')}. "
    ) + "Each round's candidate on the gate tasks; the stronger the colour, the better."
    if len(cells) > MOST_ROWS:
        finding += f" The {MOST_ROWS} weakest of {len(cells)} tags are drawn; the table has all."
    chart, wide = charts.heat(drawn, list(named.values()), [str(k) for k in rounds], "round")
    return Figure(
        id=f"{key}-heat",
        title="Weaknesses: tags × rounds",
        finding=finding,
        chart=chart,
        keep=wide,
        wide=wide,
        table=Table(
            headings=("tag", "value", "tasks", *(f"round {k}" for k in rounds)),
            rows=tuple(
                (
                    *tag,
                    f"{max(n for _, n in cells[tag].values()):,}",
                    *(
                        "–" if (mean := cells[tag].get(k, (None, 0))[0]) is None else f"{mean:.3f}"
                        for k in rounds
                    ),
                )
                for tag in sorted(cells)
            ),
            kinds=("text", "text"),
        ),
    )


def cells_of(
    gate: Mapping[int, Means], cuts: Mapping[str, Mapping[str, str]]
) -> dict[Tag, dict[int, tuple[float | None, int]]]:
    """(tag, value) to round to (mean reward, tasks with a score), of tags that tell something.

    cuts: of each task, `reflection.changes.cuts`.
    """
    found: dict[Tag, dict[int, tuple[float | None, int]]] = {}
    for name, value in telling(cuts):
        tasks = [key for key, own in cuts.items() if own.get(name) == value]
        for k, means in gate.items():
            known = [mean for key in tasks if (mean := means.get(key)) is not None]
            found.setdefault((name, value), {})[k] = (sum(known) / len(known) if known else None, len(known))
    return found
