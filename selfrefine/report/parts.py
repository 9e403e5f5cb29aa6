"""Start against end on the test split, reward by reward, and a few answers to look at.

A composite can rise while one of its parts falls ("a gain by listing"): the parts are shown beside it.
"""

from __future__ import annotations

from rich.table import Table

from selfrefine.records import Sample
from selfrefine.report.safe_text import text
from selfrefine.report.words import with_interval
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import Run
from selfrefine.stats import interval
from selfrefine.steps.critique_outcome import is_right

EXAMPLES = 3


def part_table(run: Run) -> Table | None:
    """Mean of each measuring reward, the share of answers with full marks in it and in all of them.

    None where a single reward measures (the table of rounds says it all) or the test split was read once.
    """
    start, end = _first_samples(run.round(0)), _first_samples(run.final)
    names = [reward.name for reward in next(iter(start.values())).rewards] if start else []
    if len(names) < 2 or not end:
        return None
    table = Table(title="test answers by reward", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("reward", "mean, start", "mean, end", "full marks"):
        table.add_column(heading, overflow="fold")
    for name in names:
        means = [with_interval(interval(_values(rows, name))) for rows in (start, end)]
        full = [[value == 1.0 for value in _values(rows, name) if value is not None] for rows in (start, end)]
        table.add_row(*map(text, (name, *means, _change(full))))
    both = [[all(r.value == 1.0 for r in row.rewards) for row in rows.values()] for rows in (start, end)]
    table.add_row(*map(text, ("all", "", "", _change(both))))
    return table


def examples(run: Run) -> list[str]:
    """The same test tasks answered by the starting and by the accepted policy."""
    start, end = _first_samples(run.round(0)), _first_samples(run.final)
    shown = []
    for task_id in [one for one in start if one in end][:EXAMPLES]:
        before, after = start[task_id], end[task_id]
        prompt = before.task.prompt[-1].content
        sides = (("start", before), ("end", after))
        told = [f"    {f'{name}, {_mark(row.reward)}:':<15} {_line(row.text)}" for name, row in sides]
        shown.append("\n".join((f"  {_line(prompt, 100)}", *told)))
    return shown


def _mark(reward: float | None) -> str:
    """Of an answer, before its text: that it is wrong is not to be seen from a number in a sentence."""
    if reward is None:
        return "unscored"
    return "right" if is_right(reward) else "wrong" if reward <= 0.0 else f"{reward:.3f}"


def _first_samples(folder: RoundDir) -> dict[str, Sample]:
    """By task id, the first sample of each test task."""
    found: dict[str, Sample] = {}
    if folder.has("test"):
        for row in folder.samples("test"):
            found.setdefault(row.task.id, row)
    return found


def _values(rows: dict[str, Sample], name: str) -> list[float | None]:
    return [reward.value for row in rows.values() for reward in row.rewards if reward.name == name]


def _change(hits: list[list[bool]]) -> str:
    """Shares of hits, start and end: "0.223 → 0.270"."""
    return " → ".join(f"{sum(some) / len(some):.3f}" if some else "–" for some in hits)


def _line(value: str, limit: int = 160) -> str:
    one = " ".join(value.split())
    return one if len(one) <= limit else one[: limit - 1] + "…"
