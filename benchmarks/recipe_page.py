"""RECIPES.md, from the run folders alone."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence

from benchmarks.recipe_runs import DEMO, ROUNDS, Pairing, Plan, Result, against_demo, results, rivals
from selfrefine.report.words import outcome, with_interval
from selfrefine.stats import Comparison, Difference, Interval

PACKAGES = ("torch", "transformers", "peft", "numpy", "reasoning-gym")


def page(plan: Plan, command: str) -> str:
    """RECIPES.md."""
    found = results(plan, plan.names)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    lines = [
        "# Recipes, side by side",
        "",
        f"Written by `{command}` from its run folders.",
        f"{sum(one.finished for one in found)} of {len(found)} runs are finished.",
        "",
        f"Task: `--config {plan.config}`, or the one after an @; model `{plan.model}`. A recipe after a +",
        "starts from the adapter of the one before it (its last, where no round was kept). No round",
        f"begins once {plan.budget:,} tokens are sampled to learn from and trained on (answers only, not",
        f"prompts), nor after {ROUNDS} rounds; a begun one is finished. What measures is not counted. Start",
        "and end: the test split under the starting and the accepted policy, 95 % interval. Gain: paired",
        "by task. Minutes: of all stages. A row with far fewer tokens was ended by its rounds, one with more",
        "trains nothing and has no budget: neither is at the others' price.",
        "",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, threads a run: "
        f"{os.environ.get('OMP_NUM_THREADS', 'as many')}, "
        f"Python {platform.python_version()}, {versions}.",
        "",
        "| recipe | seed | start | end | gain | accepted | tokens | minutes | ended |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(one) for one in found),
    ]
    lines += _seeds(plan, found)
    title = f"Against {DEMO}, the recipe of `make demo`"
    lines += _against_demo(plan, against_demo(plan, found), title, "At the size of the table above.")
    lines += _at_own_size(plan, found)
    lines += _revisions(found)
    return "\n".join(lines) + "\n"


def _row(one: Result) -> str:
    cells = [
        one.recipe,
        str(one.seed),
        _interval(one.start),
        _interval(one.end),
        "–" if one.gain is None else with_interval(one.gain),
        f"{one.accepted} of {one.rounds}",
        "–" if one.tokens is None else f"{one.tokens:,}",
        "–" if one.minutes is None else f"{one.minutes:.1f}",
        one.ended.replace("|", "/"),
    ]
    return f"| {' | '.join(cells)} |"


def _interval(value: Interval | None) -> str:
    return "–" if value is None else with_interval(value)


def _seeds(plan: Plan, found: Sequence[Result]) -> list[str]:
    """The recipes with all seeds: the gain of each, and their mean."""
    gains: dict[str, list[float]] = {}
    for one in found:
        if one.finished and one.gain is not None and one.gain.mean is not None:
            gains.setdefault(one.recipe, []).append(one.gain.mean)
    whole = {name: values for name, values in gains.items() if len(values) == len(plan.seeds)}
    if not whole:
        return []
    ordered = sorted(whole, key=lambda name: -sum(whole[name]))
    rows = [
        f"| {name} | {' | '.join(f'{gain:+.3f}' for gain in whole[name])} | "
        f"{sum(whole[name]) / len(plan.seeds):+.3f} |"
        for name in ordered
    ]
    head = f"| recipe | {' | '.join(f'seed {seed}' for seed in plan.seeds)} | mean |"
    rule = "|---|" + "---|" * (len(plan.seeds) + 1)
    return ["", "## Gains over three seeds", "", head, rule, *rows]


def _against_demo(plan: Plan, pairings: Sequence[Pairing], title: str, text: str) -> list[str]:
    if not pairings:
        return []
    lines = []
    for one in pairings:
        cells = [_difference(told) for told in (*one.seeds, one.together)]
        cells += [f"{one.minutes[0]:.1f} against {one.minutes[1]:.1f}"]
        lines.append(f"| {one.recipe} | {' | '.join(cells)} |")
    return [
        "",
        f"## {title}",
        "",
        f"{text} Test tasks under both ends, paired; minutes of the {len(plan.seeds)} runs together.",
        "",
        f"| recipe | {' | '.join(f'seed {seed}' for seed in plan.seeds)} | together | minutes |",
        "|---|" + "---|" * (len(plan.seeds) + 2),
        *lines,
    ]


def _at_own_size(plan: Plan, found: Sequence[Result]) -> list[str]:
    """Whoever beat the demo's recipe above, once more where it counts."""
    better, own = rivals(plan, found), plan.own_size()
    if not better:
        return []
    ran = results(own, [DEMO, *better])
    text = (
        f"What beat {DEMO} above, as `make demo` runs it: `--config {plan.config}` with nothing else set. "
        "It replaces the demo's recipe if it is better here too."
    )
    return _against_demo(own, against_demo(own, ran), f"Against {DEMO}, at the demo's own size", text)


def _difference(told: Comparison) -> str:
    if told.difference is None or told.lo is None or told.hi is None:
        return "–"
    return f"{told.difference:+.3f} [{told.lo:+.3f}, {told.hi:+.3f}]"


def _revisions(found: Sequence[Result]) -> list[str]:
    rows = []
    for one in found:
        for when, told in (("start", one.revised_start), ("end", one.revised)):
            if told:
                cells = [one.recipe, str(one.seed), when]
                cells += [with_interval(arm) for arm in (told.draft, told.revision, told.fresh)]
                cells += [with_interval(told.revision_minus_fresh), _verdict(told.revision_minus_fresh)]
                rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        return []
    return [
        "",
        "## Revision against asking again for the same tokens",
        "",
        "On the test tasks, all drawn as in training. Fresh: over the tasks whose draft was revised.",
        "",
        "| recipe | seed | at the | draft | revision | fresh | revision − fresh, paired | revision |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]


def _verdict(told: Difference) -> str:
    won = outcome(told.lo, told.hi)
    return f"{won} asking again" if won else "too few changed to tell" if told.n else "nothing to compare"
