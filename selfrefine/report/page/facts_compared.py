"""Several runs: each against its own start, the others against the first, paired by task; their curves."""

from __future__ import annotations

from collections.abc import Sequence

from selfrefine.errors import SelfrefineError
from selfrefine.gating.versus import Versus, versus
from selfrefine.report.page import charts
from selfrefine.report.page.figures import Figure, Section, Table
from selfrefine.report.page.read import Told
from selfrefine.report.words import compact, duration, with_interval
from selfrefine.stats import Difference
from selfrefine.words import count

MOST_RUNS = 6
"""Curves in one chart: more cannot be told apart."""


def section(runs: Sequence[Told]) -> Section:
    return Section(
        id="compared",
        title="The runs beside each other",
        figures=tuple(one for one in (*_paired(runs), _curves(runs), _costs(runs)) if one is not None),
    )


def _paired(runs: Sequence[Told]) -> list[Figure]:
    """As `selfrefine compare`; a sentence where it refuses."""
    try:
        found = versus([one.run for one in runs])
    except (SelfrefineError, OSError) as error:
        return [
            Figure(
                id="compared-refused",
                title="Gains",
                finding=f"They cannot be compared by test task: {error}.",
                wide=True,
            )
        ]
    figures = [_table("compared-gains", "Each run against its own start", found.gains, found.measure)]
    if found.pairs:
        against = found.pairs[0].against
        figures.append(_table("compared-pairs", f"Against the end of {against}", found.pairs, found.measure))
    return figures


def _table(key: str, title: str, rows: Sequence[Versus], measure: Sequence[str]) -> Figure:
    named = charts.labels(one.run for one in rows)
    points, cells = [], []
    for one in rows:
        found = one.found
        change = Difference(mean=found.difference, lo=found.lo, hi=found.hi, n=found.n)
        p = "–" if found.p_value is None else "<0.0001" if found.p_value < 1e-4 else f"{found.p_value:.4f}"
        means = (
            "–" if found.before is None or found.after is None else f"{found.before:.3f} → {found.after:.3f}"
        )
        cells.append(
            (
                one.run,
                means,
                with_interval(change),
                p,
                f"{found.n:,}",
                f"{found.ties:,}",
                f"{found.unscored:,}",
                f"{one.unshared:,}",
            )
        )
        if found.difference is not None:
            points.append(
                {
                    "row": named[one.run],
                    "mean": found.difference,
                    "lo": found.difference if found.lo is None else found.lo,
                    "hi": found.difference if found.hi is None else found.hi,
                    "tip": charts.label(f"{one.run}: {with_interval(change)}", 160),
                }
            )
    return Figure(
        id=key,
        title=title,
        finding=compared_in_words(rows)
        + f" Test split, {' + '.join(measure)}; paired by task, two-sided p, not corrected for "
        f"the number of rows.",
        chart=charts.ranges(
            points, list(dict.fromkeys(str(p["row"]) for p in points)), "difference", signed=True
        )
        if points
        else None,
        table=Table(
            headings=(
                "run",
                "before → after",
                "difference [95 %]",
                "p",
                "n",
                "ties",
                "no score",
                "in one run only",
            ),
            rows=tuple(cells),
        ),
    )


def compared_in_words(rows: Sequence[Versus]) -> str:
    """Which are better, which worse, of which one cannot tell."""
    better = [one.run for one in rows if one.found.lo is not None and one.found.lo > 0]
    worse = [one.run for one in rows if one.found.hi is not None and one.found.hi < 0]
    open_ = [one.run for one in rows if one.run not in (*better, *worse)]
    said = (("Better", better), ("Worse", worse), ("Cannot be told from no difference", open_))
    return " ".join(f"{what}: {', '.join(found)}." for what, found in said if found)


def _curves(runs: Sequence[Told]) -> Figure | None:
    points, rows, names, order = [], [], [], []
    named = charts.labels((one.name for one in runs), 24)
    for one in runs[:MOST_RUNS]:
        name = named[one.name]
        measured = [(s.index, s.measures["gate"]) for s in one.rounds if "gate" in s.measures]
        if any(m.mean is not None for _, m in measured):
            names.append(name)
        for k, m in measured:
            if m.mean is None:
                continue
            rows.append((one.name, str(k), with_interval(m)))
            order.append(k)
            points.append(
                {
                    "x": str(k),
                    "series": name,
                    "mean": m.mean,
                    "lo": m.lo if m.lo is not None else m.mean,
                    "hi": m.hi if m.hi is not None else m.mean,
                    "tip": f"{name}, round {k}: {with_interval(m)}",
                }
            )
    if not points:
        return None
    left = f" The first {MOST_RUNS} of {len(runs)} runs are drawn." if len(runs) > MOST_RUNS else ""
    return Figure(
        id="compared-curves",
        title="Learning curves",
        finding=f"Each round's candidate on its run's gate tasks, with 95 % intervals.{left} Runs "
        f"of other seeds have other gate tasks.",
        chart=charts.with_intervals(
            points, list(dict.fromkeys(names)), "round", "mean reward", [str(k) for k in sorted(set(order))]
        ),
        table=Table(headings=("run", "round", "gate mean [95 %]"), rows=tuple(rows), kinds=("text", "text")),
    )


def _costs(runs: Sequence[Told]) -> Figure:
    rows = []
    for one in runs:
        tokens = sum(s.cost.tokens for s in one.rounds)
        spent = sum(s.cost.spent for s in one.rounds)
        seconds = sum(one.seconds.values())
        kept = sum(1 for s in one.rounds if s.gate is not None and s.gate.outcome == "accept")
        recipe = one.manifest.config.get("recipe")
        rows.append(
            (
                one.name,
                str(recipe or "–"),
                f"{kept} of {max(0, len(one.rounds) - 1)}",
                compact(tokens),
                compact(spent),
                duration(seconds) if seconds else "–",
            )
        )
    return Figure(
        id="compared-costs",
        title="What they cost",
        finding=f"{count(len(runs), 'run')}; tokens to learn are those sampled to learn from and "
        f"those trained on, without measuring.",
        open=True,
        wide=True,
        table=Table(
            headings=("run", "recipe", "rounds kept", "tokens sampled", "tokens to learn", "time"),
            rows=tuple(rows),
            kinds=("text", "text"),
        ),
    )
