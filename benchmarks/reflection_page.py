"""The part of REFLECTION.md that is made from run folders, between two markers."""

from __future__ import annotations

from benchmarks.pages import filled, made_on
from benchmarks.recipe_runs import Result
from benchmarks.reflection_runs import (
    ARMS,
    DEMO,
    MIXTURE,
    RECIPE,
    ROUNDS,
    Paired,
    Runs,
    by_dataset,
    found,
    paired,
    plans,
)
from selfrefine.reflection.findings import Outcome
from selfrefine.report.words import with_interval
from selfrefine.stats import Comparison

MARK = "runs"


def page(runs: Runs, old: str) -> str:
    return filled(old, MARK, made_from(runs), "# Reflection: plan on against plan off")


def made_from(runs: Runs) -> str:
    done = sum(found(runs, *job).finished for job in runs.jobs)
    lines = [
        f"Made from run folders by `make bench-plan`. Finished runs: {done} of {len(runs.jobs)}.",
        "",
        f"- Mixture: the tasks of `benchmarks/mixture.py`; recipe `{RECIPE}`, model `{runs.model}`. Budget: "
        f"{runs.budget:,} tokens of answers, sampled for training (what a plan samples to try something "
        f"included) plus trained on. No round starts beyond it, or after {ROUNDS} rounds; a started round is "
        "finished. Measured tokens stand apart. The gate is off: the last policy is the end.",
        "- Demo: `--config demo` as it is.",
        "- Start and end: mean on the test split under the starting and the accepted policy, 95 % interval.",
        "",
        made_on(),
        "",
        "| tasks | seed | plan | start | end | accepted | tokens | measured | minutes | ended |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_row(name, found(runs, name, seed)) for name, seed in runs.jobs),
        "",
    ]
    for task, seeds in ((MIXTURE, runs.seeds), (DEMO, runs.demo_seeds)):
        if (told := paired(runs, task, seeds)) is not None:
            lines += _paired(task, told)
    lines += _datasets(runs)
    lines += _outcomes(runs)
    return "\n".join(lines)


def _row(name: str, one: Result) -> str:
    task, _, arm = name.rpartition("-")
    cells = [
        task,
        str(one.seed),
        arm,
        with_interval(one.start),
        with_interval(one.end),
        f"{one.accepted} of {one.rounds}",
        "–" if one.tokens is None else f"{one.tokens:,}",
        "–" if one.measured is None else f"{one.measured:,}",
        "–" if one.minutes is None else f"{one.minutes:.1f}",
        one.ended.replace("|", "/"),
    ]
    return f"| {' | '.join(cells)} |"


def _paired(task: str, told: Paired) -> list[str]:
    whole = "–" if told.lo is None or told.hi is None else f"[{told.lo:+.3f}, {told.hi:+.3f}]"
    return [
        f"### {task}: plan on minus plan off",
        "",
        "On the test tasks under both final policies, paired by task. Together: all tasks of all seeds, with "
        "the interval over tasks; beside it the interval over tasks and seeds.",
        "",
        f"| {' | '.join(f'seed {seed}' for seed in told.seeds)} | together | over tasks and seeds | p |",
        "|---|" + "---|" * (len(told.seeds) + 2),
        f"| {' | '.join(map(_difference, (*told.seeds.values(), told.together)))} | {whole} | "
        f"{_p(told.together)} |",
        "",
    ]


def _difference(told: Comparison) -> str:
    if told.difference is None:
        return "–"
    if told.lo is None or told.hi is None:
        return f"{told.difference:+.3f}"
    return f"{told.difference:+.3f} [{told.lo:+.3f}, {told.hi:+.3f}]"


def _p(told: Comparison) -> str:
    return "–" if told.p_value is None else f"{told.p_value:.4f}"


def _datasets(runs: Runs) -> list[str]:
    cells = by_dataset(runs, runs.seeds)
    if not cells:
        return []
    rows = [
        f"| {name} | {' | '.join('–' if one is None else f'{one:.3f}' for one in means)} |"
        for name, means in cells.items()
    ]
    return [
        "### The mixture, by dataset",
        "",
        "Mean on the test tasks of all finished seeds.",
        "",
        "| dataset | start | end, plan off | end, plan on |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _outcomes(runs: Runs) -> list[str]:
    """Planned against measured: what the runs with a plan did, and whether the number moved."""
    rows = []
    for name, seed in runs.jobs:
        made = plans(runs, name, seed)
        if not name.endswith(ARMS[1]) or not made:
            continue
        known = {(one.round, one.kind): one for one in made[-1].outcomes}
        for plan in made:
            for action in plan.actions:
                outcome = known.get((plan.round, action.kind))
                rows.append(
                    f"| {name.rpartition('-')[0]} | {seed} | {plan.round} | {action.kind} | "
                    f"{_cell(action.reason)} | {_cell(action.target.figure)} ({action.target.split}) | "
                    f"{_moved(outcome)} |"
                )
    if not rows:
        return []
    return [
        "### Planned against measured",
        "",
        "| tasks | seed | round | action | reason | number | moved |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _moved(one: Outcome | None) -> str:
    if one is None:
        return "–"
    figures = " → ".join("–" if value is None else f"{value:.3f}" for value in (one.target.before, one.after))
    return f"{figures}, {'not known' if one.moved is None else 'yes' if one.moved else 'no'}"


def _cell(text: str) -> str:
    """A task's own words may be in it."""
    return " ".join(text.replace("|", "/").replace("`", "'").replace("<", "&lt;").split())
