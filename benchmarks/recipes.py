"""Every recipe on the demo task at one budget of tokens: `make bench-recipes`.

Each (recipe, seed) is an ordinary run folder, so all of it can be stopped anywhere: finished runs are
skipped, the running one is interrupted when the minutes are over and continued by the next call, and
RECIPES.md is written from the folders alone. First all recipes with seed 0; then the best four and the
placebo with seeds 1 and 2. Nothing is left out of the table: what failed, and what could learn nothing,
stands in it with why.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from selfrefine import recipes
from selfrefine.errors import RunFolderError
from selfrefine.report.ending import final_row, revised, round_seconds, test_gain
from selfrefine.report.words import outcome, with_interval
from selfrefine.rundir import Run
from selfrefine.stats import Comparison, Difference, Interval, compare
from selfrefine.steps.cycle import spent_tokens
from selfrefine.steps.evaluate import per_task

SEEDS = (0, 1, 2)
ROUNDS = 6
REPEATED = 4
"""So many of the best are run with all seeds."""
PLACEBO = "placebo"
DEMO = "expert-iteration"
"""The recipe of `make demo` (a test holds it to that), which a better one in as many minutes replaces."""
ON_TEXT = "learn-to-revise@demo-text"
"""Sums leave nothing to revise; four words that must be in a sentence do. A name may end in @CONFIG."""
PAGE = Path(__file__).parent / "RECIPES.md"
PACKAGES = ("torch", "transformers", "peft", "numpy", "reasoning-gym")


class Result(Struct, frozen=True, kw_only=True):
    """What the folder of a run says. Null is what was not measured."""

    recipe: str
    seed: int
    ended: str
    finished: bool
    start: Interval | None = None
    end: Interval | None = None
    gain: Difference | None = None
    rounds: int = 0
    accepted: int = 0
    tokens: int | None = None
    """Sampled to learn from and trained on; of a recipe that trains nothing, sampled for the answers."""
    minutes: float | None = None
    """All stages, measuring included."""
    revised: dict[str, Any] | None = None
    revised_start: dict[str, Any] | None = None


class Plan(Struct, frozen=True, kw_only=True):
    """What is asked for. `budget`: tokens, sampled and trained, from which on no round begins."""

    folder: Path
    config: str = "demo"
    model: str = "smollm2"
    budget: int = 100_000
    only: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return list(self.only) or [*recipes.names(), ON_TEXT]

    def path(self, name: str, seed: int) -> Path:
        return self.folder / f"{name.replace('@', '-on-')}-s{seed}"

    def command(self, name: str, seed: int) -> list[str]:
        """The budget is the end, or ROUNDS, over which the gate spends its alpha: none gives up early."""
        recipe, _, config = name.partition("@")
        words = ["cycle", "--recipe", recipe, "--config", config or self.config, "--model", self.model]
        words += ["--run", str(self.path(name, seed)), "--seed", str(seed)]
        if recipes.read(recipe).table.get("cycle", {}).get("rounds") != 0:
            words += ["--rounds", str(ROUNDS), "--set", f"cycle.max_tokens={self.budget}"]
            words += ["--set", "cycle.patience=1000"]
        return [*words, *(word for text in self.sets for word in ("--set", text))]


def result(plan: Plan, recipe: str, seed: int) -> Result:
    path = plan.path(recipe, seed)
    failed = path.with_name(f"{path.name}.failed")
    if failed.is_file():
        return Result(recipe=recipe, seed=seed, ended=failed.read_text().strip(), finished=True)
    try:
        run = Run.open(path)
    except RunFolderError:
        return Result(recipe=recipe, seed=seed, ended="not begun", finished=False)
    summaries = [folder.summary() for folder in run.rounds()]
    final = final_row(run)
    ends = [event for event in run.events.read() if event.get("kind") == "end"]
    told = revised(run)
    start = summaries[0].measures.get("test") if summaries else None
    trained = len(summaries) > 1
    asked = sum(told["tokens"][key] for key in ("draft", "critique", "revision")) if told else None
    return Result(
        recipe=recipe,
        seed=seed,
        ended=ends[-1]["why"] if ends and final else "unfinished",
        finished=bool(ends and final),
        start=msgspec.convert(start, Interval) if start else None,
        end=final.test if final else None,
        gain=test_gain(run) if final else None,
        rounds=max(0, len(summaries) - 1),
        accepted=sum(one.gate is not None and one.gate.accepted for one in summaries),
        tokens=spent_tokens(summaries) if trained or asked is None else asked,
        minutes=_seconds(run) / 60,
        revised=told,
        revised_start=summaries[0].measures.get("revised") if summaries else None,
    )


def _seconds(run: Run) -> float:
    """Of all stages; those of the final measurement belong to no round."""
    final = [
        e["seconds"] for e in run.events.read() if e.get("kind") == "stage-end" and e["round"] == "final"
    ]
    return float(sum(round_seconds(run).values()) + sum(final))


def todo(plan: Plan) -> list[tuple[str, int]]:
    """Runs to begin or to go on with, in order. What is repeated is known once seed 0 is done everywhere."""
    first = [result(plan, name, SEEDS[0]) for name in plan.names]
    waiting = [(one.recipe, one.seed) for one in first if not one.finished]
    if waiting:
        return waiting
    again = [(name, seed) for seed in SEEDS[1:] for name in repeated(first)]
    return [(name, seed) for name, seed in again if not result(plan, name, seed).finished]


def repeated(first: Sequence[Result]) -> list[str]:
    """The best of the trained recipes by their gain with seed 0, the demo's recipe and the placebo."""
    gains = {one.recipe: one.gain.mean for one in first if one.gain and one.rounds}
    known = {name: gain for name, gain in gains.items() if gain is not None and name != PLACEBO}
    known = {name: gain for name, gain in known.items() if "@" not in name}  # another task's gain is another
    best = sorted(known, key=lambda name: (-known[name], name))
    also = [one.recipe for one in first if one.recipe in (PLACEBO, DEMO)]
    return list(dict.fromkeys(best[:REPEATED] + sorted(also)))


def go(plan: Plan, recipe: str, seed: int, left_s: float) -> bool:
    """Run, or go on with, one of them; False when the time was over first."""
    path = plan.path(recipe, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.with_name(f"{path.name}.log")
    command = [sys.executable, "-m", "selfrefine", *plan.command(recipe, seed)]
    with log.open("ab") as out:
        # A session of its own: Ctrl-C here would reach it twice, and twice means at once.
        child = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = child.wait(timeout=max(1.0, left_s))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as over:
            child.send_signal(signal.SIGINT)  # it commits its batch, and the next call goes on there
            child.wait()
            if isinstance(over, KeyboardInterrupt):
                raise
            return False
    if code < 0 or code in (130, 143):  # killed, perhaps for want of memory: the next call goes on there
        return False
    if code not in (0, 8):  # 8: nothing to learn, which is a result, and measured
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        reason = f"failed with exit code {code}: {said[-1].removeprefix('error: ') if said else 'no word'}"
        path.with_name(f"{path.name}.failed").write_text(reason + "\n")
    return True


def page(plan: Plan, command: str) -> str:
    """RECIPES.md."""
    every = [result(plan, name, SEEDS[0]) for name in plan.names]
    more = [
        one
        for name in plan.names
        for seed in SEEDS[1:]
        if (one := result(plan, name, seed)).ended != "not begun"
    ]
    found = sorted(every + more, key=lambda one: (plan.names.index(one.recipe), one.seed))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    lines = [
        "# Recipes, side by side",
        "",
        f"Written by `{command}` from its run folders.",
        f"{sum(one.finished for one in found)} of {len(found)} runs are finished.",
        "",
        f"Task: `--config {plan.config}`, or the one after an @; model `{plan.model}`. No round begins once",
        f"{plan.budget:,} tokens are sampled to learn from and trained on (answers only, not prompts), nor",
        f"after {ROUNDS} rounds; a begun one is finished. What measures is not counted. Start and end:",
        "the test split under the starting and the accepted policy, 95 % interval. Gain: paired by task.",
        "Minutes: of all stages.",
        "",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, threads a run: "
        f"{os.environ.get('OMP_NUM_THREADS', 'as many')}, "
        f"Python {platform.python_version()}, {versions}.",
        "",
        "| recipe | seed | start | end | gain | accepted | tokens | minutes | ended |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(one) for one in found),
    ]
    lines += _seeds(found) + _against_demo(plan, found) + _revisions(found)
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


def _seeds(found: Sequence[Result]) -> list[str]:
    """The recipes with all seeds: the gain of each, and their mean."""
    gains: dict[str, list[float]] = {}
    for one in found:
        if one.finished and one.gain is not None and one.gain.mean is not None:
            gains.setdefault(one.recipe, []).append(one.gain.mean)
    whole = {name: values for name, values in gains.items() if len(values) == len(SEEDS)}
    if not whole:
        return []
    ordered = sorted(whole, key=lambda name: -sum(whole[name]))
    rows = [
        f"| {name} | {' | '.join(f'{gain:+.3f}' for gain in whole[name])} | "
        f"{sum(whole[name]) / len(SEEDS):+.3f} |"
        for name in ordered
    ]
    head = f"| recipe | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean |"
    rule = "|---|" + "---|" * (len(SEEDS) + 1)
    return ["", "## Gains over three seeds", "", head, rule, *rows]


def _against_demo(plan: Plan, found: Sequence[Result]) -> list[str]:
    """Paired by test task, each seed and all of them together, with the minutes of both."""
    done = {(one.recipe, one.seed): one for one in found if one.finished and one.gain is not None}
    others = [
        name
        for name in plan.names
        if name != DEMO and all((name, s) in done and (DEMO, s) in done for s in SEEDS)
    ]
    if not others:
        return []
    lines = []
    for name in others:
        cells, sides = [], (dict[str, float | None](), dict[str, float | None]())
        for seed in SEEDS:
            both = [_ends(plan.path(recipe, seed)) for recipe in (DEMO, name)]
            cells.append(_difference(compare(both[0], both[1], seed)))
            for side, scores in zip(sides, both, strict=True):
                side.update({f"{seed}/{key}": value for key, value in scores.items()})
        minutes = [sum(done[recipe, s].minutes or 0.0 for s in SEEDS) for recipe in (name, DEMO)]
        told = [*cells, _difference(compare(*sides)), f"{minutes[0]:.1f} against {minutes[1]:.1f}"]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return [
        "",
        f"## Against {DEMO}, the recipe of `make demo`",
        "",
        f"Test tasks under both ends, paired; minutes of the {len(SEEDS)} runs together.",
        "",
        f"| recipe | {' | '.join(f'seed {seed}' for seed in SEEDS)} | together | minutes |",
        "|---|" + "---|" * (len(SEEDS) + 2),
        *lines,
    ]


def _ends(path: Path) -> dict[str, float | None]:
    return per_task(Run.open(path).final.samples("test"))


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
                cells += [_figure(told[arm]) for arm in ("draft", "revision", "fresh")]
                cells += [_figure(told["revision_minus_fresh"]), _verdict(told["revision_minus_fresh"])]
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


def _verdict(told: dict[str, Any]) -> str:
    won = outcome(told["lo"], told["hi"])
    return f"{won} asking again" if won else "nothing to compare"


def _figure(told: dict[str, Any]) -> str:
    kept = {key: told[key] for key in ("mean", "lo", "hi", "n")}
    return with_interval(Interval(**kept))


def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    plan = Plan(
        folder=flags.folder,
        config=flags.config,
        model=flags.model,
        budget=flags.budget,
        only=tuple(flags.only or ()),
        sets=tuple(flags.set or ()),
    )
    end = time.monotonic() + flags.minutes * 60
    given = flags_that_matter(flags)
    command = f"make bench-recipes{' with ' + ' '.join(given) if given else ''}"
    while (left := end - time.monotonic()) > 0 and (waiting := todo(plan)):
        recipe, seed = waiting[0]
        print(f"{recipe}, seed {seed}: {left / 60:.0f} minutes are left", file=sys.stderr, flush=True)
        in_time = go(plan, recipe, seed, left)
        flags.output.write_text(page(plan, command), encoding="utf-8")
        if not in_time:
            break
    flags.output.write_text(page(plan, command), encoding="utf-8")
    rest = len(todo(plan))
    print(f"{flags.output}; {rest or 'no'} runs are left" + (": call again" if rest else ""), file=sys.stderr)
    return 0


def flags_that_matter(flags: argparse.Namespace) -> list[str]:
    """What was asked otherwise than by default, as far as it decides a figure: the page says it."""
    usual = _parser()
    names = ("config", "model", "budget", "only", "set")
    return [f"{name}={value}" for name in names if (value := getattr(flags, name)) != usual.get_default(name)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__)
    parser.add_argument("--minutes", type=float, default=50, help="interrupt after so many (default: 50)")
    parser.add_argument("--budget", type=int, default=100_000, help="tokens a run, sampled and trained")
    parser.add_argument("--only", action="append", choices=[*recipes.names(), ON_TEXT], help="repeatable")
    parser.add_argument("--config", default="demo", help="the task: a configuration file or a shipped one")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="for all runs; repeatable")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-recipes"), help="of the run folders")
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    return parser


if __name__ == "__main__":
    sys.exit(main())
