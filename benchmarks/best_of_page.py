"""The part of CRITIQUE.md that is made from stored answers, between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.best_of_curve import GREEDY, SIZES, Point, Separation, curve, separation
from benchmarks.best_of_rows import SAMPLES, Arm, Judged
from benchmarks.pages import filled, made_on
from selfrefine.report.words import with_interval
from selfrefine.stats import Difference, paired_difference

MARK = "best-of"
TITLE = "# Critique and judgement"


def page(arms: Sequence[Arm], settings: dict[str, dict[str, Any]], old: str) -> str:
    return filled(old or TITLE, MARK, made_from(arms, settings), "## Answering with a verifier")


def made_from(arms: Sequence[Arm], settings: dict[str, dict[str, Any]]) -> str:
    lines = [
        "Made from stored answers by `python -m benchmarks.best_of`.",
        "",
        f"- {SAMPLES} answers to each task are sampled once; below N = {SAMPLES} they are cut into disjoint "
        "sets of N, and a task counts with the mean over its sets.",
        "- Accuracy: mean reward of the answer that is given, 95 % interval over tasks. Over greedy, over "
        "majority: paired by task.",
        "- `oracle` gives the best of the N, as nobody can who does not know the reward: it is the limit.",
        "- Tokens per task. Scored: prompt, answer and question, read once for each different answer.",
        "- Within a task: how often a right answer has the higher probability of two to the same task; "
        "0.5 is chance.",
        "",
        made_on(),
        "",
    ]
    curves = [curve(arm, settings) for arm in arms]
    for arm, points in zip(arms, curves, strict=True):
        lines += _arm(arm, points)
    for arm, points in zip(arms[1:], curves[1:], strict=True):
        lines += _against(arms[0], curves[0], arm, points)
    return "\n".join(lines)


def _arm(arm: Arm, points: Sequence[Point]) -> list[str]:
    about = arm.about
    policy = f"model `{about.model}`" + (" with an adapter" if about.adapter else "")
    return [
        f"### {arm.label}",
        "",
        f"{policy[0].upper()}{policy[1:]}, policy {about.policy[:12]}; {len(arm.greedy):,} tasks of "
        f"{about.source}, seed {about.seed}; temperature {about.temperature:g}; measured by "
        f"{', '.join(about.measure)}.",
        "",
        "| N | given by | accuracy | over greedy | over majority | sampled | scored |",
        "|---|---|---|---|---|---|---|",
        *(_row(point) for point in points),
        "",
        *(_separated(name, separation(arm, of)) for name, of in _JUDGES),
        "",
    ]


def _p_yes(one: Judged) -> float | None:
    return one.p_yes


def _p_ok(one: Judged) -> float | None:
    return one.p_ok


_JUDGES = (("p-true: p(Yes)", _p_yes), ("critic: p(ok)", _p_ok))


def _separated(name: str, told: Separation) -> str:
    means = f"{_figure(told.right)} for right answers and {_figure(told.wrong)} for wrong ones"
    tasks = f"a task (of {told.within.n:,} that were answered both ways)"
    return f"- {name} is {means}; within {tasks} {with_interval(told.within)}."


def _row(point: Point) -> str:
    over = "–" if point.over_majority is None else _change(point.over_majority)
    gain = "–" if point.by == GREEDY else _change(point.gain)
    cells = [str(point.n), point.by, with_interval(point.accuracy), gain, over]
    return f"| {' | '.join([*cells, f'{point.sampled:,.0f}', f'{point.scored:,.0f}'])} |"


def _against(first: Arm, start: Sequence[Point], arm: Arm, points: Sequence[Point]) -> list[str]:
    """Of the tasks that both have answered."""
    if not first.greedy.keys() & arm.greedy.keys():
        return []
    rows = [
        f"| {b.n} | {b.by} | {_change(paired_difference(_shared(a, b), _shared(b, a)))} |"
        for a, b in zip(start, points, strict=True)
        if b.n in (1, SIZES[1], SIZES[-1])
    ]
    return [
        f"### {arm.label} minus {first.label}",
        "",
        "Accuracy, paired by task.",
        "",
        "| N | given by | difference |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _shared(point: Point, other: Point) -> dict[str, float | None]:
    return {key: value for key, value in point.scores.items() if key in other.scores}


def _change(found: Difference) -> str:
    return with_interval(found)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
