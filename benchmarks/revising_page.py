"""The part of CRITIQUE.md that is made from the runs of `python -m benchmarks.revising`."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.pages import filled, made_on
from benchmarks.revising_runs import HERE, TASKS, VARIANTS, Runs, Told, together, told
from selfrefine.errors import RunFolderError
from selfrefine.report.words import with_interval
from selfrefine.runfolder.run import Run

MARK = "revising"


def page(runs: Runs, old: str) -> str:
    return filled(old or "# Critique and judgement", MARK, made_from(runs), "## Does revising pay?")


def made_from(runs: Runs) -> str:
    lines = [
        "Made from run folders by `python -m benchmarks.revising`.",
        "",
        made_on(),
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
