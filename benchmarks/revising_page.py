"""The part of CRITIQUE.md that is made from the runs of `python -m benchmarks.revising`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator

from benchmarks.recipe_page import PACKAGES
from benchmarks.revising_runs import HERE, TASKS, VARIANTS, Runs, Told, together, told
from selfrefine.errors import RunFolderError
from selfrefine.report.words import with_interval
from selfrefine.runfolder.run import Run

BEGIN, END = "<!-- revising -->", "<!-- /revising -->"


def page(runs: Runs, old: str) -> str:
    """`old` with what stands between the markers made anew, or with a new section at its end."""
    made = f"{BEGIN}\n{made_from(runs)}{END}"
    if BEGIN not in old or END not in old:
        return f"{old.rstrip()}\n\n{made}\n"
    before, _, rest = old.partition(BEGIN)
    return before + made + rest.partition(END)[2]


def made_from(runs: Runs) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    lines = [
        "Made from run folders by `python -m benchmarks.revising`.",
        "",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {versions}.",
        "",
    ]
    for task in TASKS:
        lines += _task(runs, task)
    return "\n".join(lines) + "\n"


def _task(runs: Runs, task: str) -> Iterator[str]:
    words = " ".join(TASKS[task][0]).replace(str(HERE), HERE.name)
    yield f"`{task}`: `{words}`"
    yield ""
    yield (
        "| corrections | seed | draft | revision | fresh | revision − fresh | right after wrong | copies "
        "| dependence | kept: revision − fresh |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    sums = []
    for variant in VARIANTS:
        found = {seed: one for seed in runs.seeds if (one := _told(runs, f"{task}-{variant}", seed))}
        for seed, one in found.items():
            yield _row(variant, seed, one)
        if len(found) > 1:
            difference, (lo, hi) = together(list(found.values()))
            over = "" if lo is None or hi is None else f"; over tasks and seeds [{lo:+.3f}, {hi:+.3f}]"
            sums.append(f"- `{variant}`, {len(found)} seeds: {with_interval(difference)}{over}")
    yield ""
    yield from sums
    if sums:
        yield ""


def _told(runs: Runs, name: str, seed: int) -> Told | None:
    try:
        return told(Run.open(runs.path(name, seed)))
    except RunFolderError:
        return None


def _row(variant: str, seed: int, one: Told) -> str:
    found, near = one.summary, one.summary.nearness
    cells = [
        variant,
        str(seed),
        _figure(found.draft.mean),
        _figure(found.revision.mean),
        f"{_figure(found.fresh.mean)} (as {found.fresh_as})",
        f"{with_interval(found.revision_minus_fresh)} ({found.revision_minus_fresh.n} tasks)",
        _figure(near.right_after_wrong),
        _figure(near.copied),
        _figure(near.dependence),
        with_interval(one.kept.revision_minus_fresh),
    ]
    return f"| {' | '.join(cells)} |"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
