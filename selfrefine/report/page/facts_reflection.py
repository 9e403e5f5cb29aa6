"""Reflection and critique: weaknesses, plans against what came of them, revisions beside asking again."""

from __future__ import annotations

from collections.abc import Sequence

from selfrefine.reflection.findings import Cell, Outcome, Plan, Weaknesses
from selfrefine.report.criticised import critic_lines
from selfrefine.report.page import charts
from selfrefine.report.page.figures import Figure, Section, Table
from selfrefine.report.page.read import Told
from selfrefine.report.words import number, revised_lines, three, weaknesses_line, with_interval
from selfrefine.words import count

_MOST_CAUSES = 12_000
"""Characters."""


def section(told: Told, key: str) -> Section | None:
    figures = [
        _weaknesses(told.weaknesses, key),
        _causes(told.causes, key),
        _planned(told, key),
        _next(told.plan, key),
        *_critique(told, key),
    ]
    found = tuple(one for one in figures if one is not None)
    return Section(id=f"{key}-reflection", title="Critique and reflection", figures=found) if found else None


# --- reflection ------------------------------------------------------------------------------------


def _weaknesses(found: Weaknesses | None, key: str) -> Figure | None:
    if found is None:
        return None
    cells = [("gate", cell) for cell in found.gate] + [("train", cell) for cell in found.train]
    weak = [
        (split, cell)
        for split, cell in cells
        if cell.name in found.heaviest and cell.rate is not None and cell.slice is not None
    ]
    weak.sort(key=lambda pair: -pair[1].weight)
    named = charts.labels(f"{cell.name} ({split})" for split, cell in weak[:12])
    points = [
        {
            "row": named[f"{cell.name} ({split})"],
            "mean": cell.rate,
            "lo": cell.rate if cell.lo is None else cell.lo,
            "hi": cell.rate if cell.hi is None else cell.hi,
            "tip": charts.label(
                f"{cell.name}: {cell.rate:.3f}, {count(cell.n, 'task')}; elsewhere {three(cell.rest)}", 160
            ),
        }
        for split, cell in weak[:12]
    ]
    finding = weaknesses_line(found) or "No slice was tested."
    return Figure(
        id=f"{key}-weak",
        title=f"Weaknesses after round {found.after_round}",
        finding=finding,
        wide=not points,
        chart=charts.ranges(points, list(named.values()), "mean reward", signed=False) if points else None,
        open=not points,
        table=Table(
            headings=(
                "cell",
                "split",
                "found by",
                "n",
                "rate",
                "low",
                "high",
                "elsewhere",
                "q",
                "share of what is missing",
            ),
            rows=tuple(_cell(split, cell) for split, cell in cells),
            kinds=("text", "text", "text"),
        )
        if cells
        else None,
        links=tuple(
            (f"{cell.name} ({split})", cell.examples[0]) for split, cell in weak[:5] if cell.examples
        ),
        notes=found.notes,
    )


def _causes(text: str, key: str) -> Figure | None:
    if not text.strip():
        return None
    short = text if len(text) <= _MOST_CAUSES else f"{text[:_MOST_CAUSES]}\n… the rest is in causes.md"
    return Figure(
        id=f"{key}-causes",
        title="Causes",
        finding="What was counted about the heaviest weaknesses, and beside it what the critic wrote. "
        "A model's sentence is marked as one, and nothing depends on it.",
        wide=True,
        code=(short,),
    )


def _cell(split: str, cell: Cell) -> tuple[str, ...]:
    figures = (cell.rate, cell.lo, cell.hi, cell.rest)
    q = "–" if cell.q_value is None else number(cell.q_value)
    return (cell.name, split, cell.by, f"{cell.n:,}", *map(three, figures), q, f"{100 * cell.weight:.0f} %")


def _planned(told: Told, key: str) -> Figure | None:
    outcomes, dropped = told.outcomes, told.plan.dropped if told.plan is not None else {}
    if not outcomes:
        return None
    return Figure(
        id=f"{key}-planned",
        title="Planned against measured",
        finding=outcomes_in_words(outcomes),
        wide=True,
        open=True,
        table=Table(
            headings=("round", "action", "should move", "before", "after", "moved", "why"),
            rows=tuple(
                (
                    str(one.round),
                    one.kind,
                    f"{one.target.figure} ({one.target.split}) {one.target.direction}",
                    three(one.target.before),
                    three(one.after),
                    {True: "yes", False: "no", None: "not known"}[one.moved],
                    one.why or "–",
                )
                for one in outcomes
            ),
            kinds=("text", "text", "text", "", "", "text", "sentence"),
        ),
        notes=tuple(f"{kind} is not tried again: {why}" for kind, why in sorted(dropped.items())),
    )


def outcomes_in_words(outcomes: Sequence[Outcome]) -> str:
    known = [one for one in outcomes if one.moved is not None]
    moved = sum(1 for one in known if one.moved)
    unknown = len(outcomes) - len(known)
    rest = f"; of {unknown} it is not known" if unknown else ""
    return f"{moved} of {count(len(known), 'action')} moved the number that it was meant to move{rest}."


def _next(plan: Plan | None, key: str) -> Figure | None:
    if plan is None or not plan.actions:
        return None
    return Figure(
        id=f"{key}-plan",
        title=f"The plan for round {plan.round}",
        finding=f"{count(len(plan.actions), 'action')}, "
        f"{'done by itself' if plan.mode == 'auto' else 'suggested, not done'}.",
        wide=True,
        open=True,
        table=Table(
            headings=("action", "should move", "from", "why"),
            rows=tuple(
                (
                    one.kind,
                    f"{one.target.figure} ({one.target.split}) {one.target.direction}",
                    three(one.target.before),
                    one.reason,
                )
                for one in plan.actions
            ),
            kinds=("text", "text", "", "sentence"),
        ),
    )


# --- critique --------------------------------------------------------------------------------------


def _critique(told: Told, key: str) -> list[Figure]:
    found = [
        *(_revised(told, where, key) for where in ("start", "end")),
        _turns(told, key),
        _equal_cost(told, key),
    ]
    return [one for one in found if one is not None]


def _revised(told: Told, where: str, key: str) -> Figure | None:
    """Draft, revision and asking again on the test tasks."""
    summary = told.revised.get(where)
    if summary is None:
        return None
    arms = [("draft", summary.draft), ("revision", summary.revision), ("asking again", summary.fresh)]
    known = [(name, one) for name, one in arms if one.mean is not None]
    points = [
        {
            "row": name,
            "mean": one.mean,
            "lo": one.mean if one.lo is None else one.lo,
            "hi": one.mean if one.hi is None else one.hi,
            "tip": f"{name}: {with_interval(one)}",
        }
        for name, one in known
    ]
    policy = "starting" if where == "start" else "accepted"
    return Figure(
        id=f"{key}-revised-{where}",
        title=f"Does revising pay? The {policy} policy",
        finding=_sentence("; ".join([*revised_lines(summary)[1:], *critic_lines(summary)]))
        + " Asking again means fresh samples of the same tasks for as many tokens.",
        chart=charts.ranges(points, [name for name, _ in known], "mean reward on test tasks", signed=False)
        if points
        else None,
        open=not points,
        table=Table(
            headings=("answers", "mean [95 %]", "tasks", "no score"),
            rows=tuple((name, with_interval(one), f"{one.n:,}", f"{one.unscored:,}") for name, one in arms),
        ),
    )


def _turns(told: Told, key: str) -> Figure | None:
    """Wrong → right and right → wrong of the rounds' critiques."""
    rounds = [(k, one) for k, one in sorted(told.critiques.items()) if one.revisions]
    if not rounds:
        return None
    kinds = (
        ("wrong_right", "wrong → right", "var(--c1)"),
        ("right_wrong", "right → wrong", "var(--c2)"),
        ("right_right", "stayed right", "var(--c3)"),
        ("wrong_wrong", "stayed wrong", "var(--grey)"),
    )
    points, rows, better, worse = [], [], 0, 0
    for k, one in rounds:
        sums = {name: sum(getattr(p, name) for p in one.passes) for name, _, _ in kinds}
        unscored = sum(p.unscored for p in one.passes)
        better, worse = better + sums["wrong_right"], worse + sums["right_wrong"]
        rows.append(
            (str(k), f"{one.revisions:,}", *(f"{sums[name]:,}" for name, _, _ in kinds), f"{unscored:,}")
        )
        points += [
            {
                "row": str(k),
                "part": words,
                "place": i,
                "value": sums[name],
                "tip": f"round {k}: {sums[name]:,} {words}",
            }
            for i, (name, words, _) in enumerate(kinds)
        ]
    if not any(point["value"] for point in points):
        points = []
    return Figure(
        id=f"{key}-turns",
        title="What revisions turned",
        finding=f"{count(better, 'wrong draft')} became right and {count(worse, 'right one')} "
        f"became wrong by revising."
        if points
        else "The revisions of the rounds were not scored, so nobody knows which of them are right.",
        chart=charts.stacked(
            points, [w for _, w, _ in kinds], [c for _, _, c in kinds], "round", "revisions", share=False
        )
        if points
        else None,
        open=not points,
        table=Table(
            headings=("round", "revisions", *(words for _, words, _ in kinds), "no score"), rows=tuple(rows)
        ),
    )


def _equal_cost(told: Told, key: str) -> Figure | None:
    """Right answers of drafts, revisions and fresh samples at equal tokens, over the same drafts."""
    points, rows, names = [], [], ["draft", "revision", "asking again"]
    for k, one in sorted(told.critiques.items()):
        right = one.comparison.right
        if not one.comparison.compared:
            continue
        arms = (right.draft, right.revision, right.fresh if isinstance(right.fresh, float) else None)
        rows.append(
            (
                str(k),
                f"{one.comparison.compared:,}",
                *map(three, arms),
                f"{one.tokens.critique + one.tokens.revision:,}",
                f"{one.tokens.fresh:,}",
            )
        )
        points += [
            {
                "x": str(k),
                "series": name,
                "mean": rate,
                "lo": rate,
                "hi": rate,
                "tip": f"round {k}, {name}: {rate:.3f} right",
            }
            for name, rate in zip(names, arms, strict=True)
            if rate is not None
        ]
    if not points:
        return None
    last, compared, draft, revision, fresh = rows[-1][:5]
    again = f", asking again for the same tokens {fresh}" if fresh != "–" else "; no fresh samples were drawn"
    return Figure(
        id=f"{key}-equal",
        title="Revision beside asking again, in the rounds",
        finding=f"Share of right answers in round {last}, over {compared} revised drafts: "
        f"draft {draft}, revision {revision}{again}.",
        chart=charts.with_intervals(
            points,
            [n for n in names if any(p["series"] == n for p in points)],
            "round",
            "share right",
            list(dict.fromkeys(str(p["x"]) for p in points)),
        ),
        table=Table(
            headings=("round", "drafts", *names, "tokens of critique", "tokens of asking again"),
            rows=tuple(rows),
        ),
    )


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."
