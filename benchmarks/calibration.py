"""What the judges' figures are worth: `python -m benchmarks.calibration`, a part of CRITIQUE.md.

The model answers tasks of four families, the task's own scorer says what is right, and the same model
judges: `p-true` says how likely each answer is right, `critic` how likely its verdict is `ok` (the scored
verdict of `critique`), `rank-critic` compares the answers to a task. What people wrote in the page stays;
only what stands between the markers is made anew.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from benchmarks.mixture import PARTS
from benchmarks.pages import filled, made_on
from selfrefine import prompts
from selfrefine.agreement import BINS, Calibration, CalibrationSummary, auc, calibration
from selfrefine.config import GenerateConfig
from selfrefine.engines.base import Engine
from selfrefine.engines.load import load_engine
from selfrefine.records import Reward, Sample, Task, groups
from selfrefine.report.words import with_interval
from selfrefine.rewards.base import RewardOptions, RewardSpec, Scorer
from selfrefine.stats import Interval, interval
from selfrefine.steps import critics
from selfrefine.steps.generate import generate
from selfrefine.steps.reward import build, score
from selfrefine.tasks import TaskOptions, load

PAGE = Path(__file__).parent / "CRITIQUE.md"
MARK = "calibration"
TITLE = "## What the judges' figures are worth"
DEMO = "demo"
FAMILIES = ("products", "gcd", "number_sequence")
PROBABLE = ("p-true", "critic")
"""Judges whose figure is a probability."""
JUDGES = (*PROBABLE, "rank-critic")
AT_ONCE = 8
"""Tasks whose answers are held and judged together."""


class Found(Struct, frozen=True, kw_only=True):
    """Of one family. `apart`: by judge, the chance that a right answer is put above a wrong one to the same
    task, over tasks that were answered both ways."""

    family: str
    tasks: int
    chances: dict[str, CalibrationSummary]
    apart: dict[str, Interval]
    seconds: float = 0.0


def tasks_of(family: str, n: int, seed: int) -> list[Task]:
    """Of the demo as its configuration has them; of another family with the mixture's settings."""
    if family == DEMO:
        [part] = [one for one in PARTS if one.dataset == "chain_sum"]
        options = TaskOptions(n=n, seed=seed, settings=part.settings, suffix=" Answer with just the number.")
    else:
        [part] = [one for one in PARTS if one.dataset == family]
        options = TaskOptions(n=n, seed=seed, settings=part.settings)
    return list(load(f"gym:{part.dataset}", options))


def scorers(engine: Engine | None, seed: int) -> tuple[Scorer, ...]:
    specs = [RewardSpec(name=name) for name in ("gym", "p-true", "rank-critic")]
    built = build(specs, RewardOptions(seed=seed, engine=engine))
    return (*built, Scorer(name="critic", score=verdicts(engine))) if engine is not None else built


def verdicts(engine: Engine) -> Callable[[Sequence[Sample]], list[Reward]]:
    """p(ok) of the critic's scored verdict, as `critique.verdict = scored` has it."""
    template = prompts.load("choice", "choice")

    def score(rows: Sequence[Sample]) -> list[Reward]:
        found = critics.p_ok(engine, template, [critics.judging(row) for row in rows])
        return [
            Reward(name="critic", value=value, error="too long to be judged" if value is None else None)
            for value, _ in found
        ]

    return score


def value(row: Sample, name: str) -> float | None:
    return next((one.value for one in row.rewards if one.name == name), None)


def is_right(row: Sample) -> bool | None:
    """The scorer gives the whole point; null where it could not say."""
    known = value(row, "gym")
    return None if known is None else known >= 1.0 - 1e-9


def within(rows: Sequence[Sample], name: str) -> list[float | None]:
    """By task, how often a right answer is above a wrong one; null where all are right, or wrong."""
    return [auc((value(row, name), is_right(row)) for row in group) for group in groups(rows)]


def measured(family: str, windows: Iterable[Sequence[Sample]]) -> Found:
    """Of scored answers, a task's rows in one window."""
    total, tasks = {name: Calibration() for name in PROBABLE}, 0
    told: dict[str, list[float | None]] = {name: [] for name in JUDGES}
    for rows in windows:
        for name in PROBABLE:
            total[name] += Calibration.of((value(row, name), is_right(row)) for row in rows)
        tasks += len(groups(rows))
        for name in JUDGES:
            told[name] += within(rows, name)
    return Found(
        family=family,
        tasks=tasks,
        chances={name: calibration(own) for name, own in total.items()},
        apart={name: interval(told[name]) for name in JUDGES},
    )


def judged(family: str, engine: Engine, flags: argparse.Namespace) -> Found:
    """Answers of the model to the family's tasks, and what it thinks of them."""
    tasks = tasks_of(family, flags.tasks, flags.seed)
    settings = GenerateConfig(n=flags.answers, max_new_tokens=flags.max_new_tokens)
    using = scorers(engine, flags.seed)
    start = time.monotonic()
    parts = [tasks[i : i + AT_ONCE] for i in range(0, len(tasks), AT_ONCE)]
    found = measured(family, (score(generate(part, engine, settings, flags.seed), using) for part in parts))
    return Found(
        family=family,
        tasks=found.tasks,
        chances=found.chances,
        apart=found.apart,
        seconds=time.monotonic() - start,
    )


def page(old: str, made: str) -> str:
    return filled(old or "# Critique and judgement", MARK, made, TITLE)


def table(found: Sequence[Found], model: str, policy: str, seed: int) -> str:
    lines = [
        f"Made by `python -m benchmarks.calibration`. Model `{model}`, policy {policy[:12]}, seed {seed}; "
        "the model judges its own answers, the scorer of the task says what is right.",
        "",
        "- ECE: mean distance of the judge's probability from the right-rate over ten bins, weighted by "
        "answers (0 is calibrated). AUC: over all answers of the family (0.5 is chance).",
        "- Within a task: how often a right answer is put above a wrong one to the same task, a tie counting "
        "one half; mean over the tasks that were answered both ways, 95 % interval over these.",
        "",
        made_on(),
        "",
        "| tasks | answers | right | judge | mean p | ECE | AUC | both ways | within a task | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_row(one, name) for one in found for name in JUDGES),
        "",
        "Right-rate of the answers whose p(ok) lies in a tenth (how many they are):",
        "",
        "| tasks | " + " | ".join(f"to {(place + 1) / BINS:.1f}" for place in range(BINS)) + " |",
        "|---" * (BINS + 1) + "|",
        *map(_curve, found),
        "",
    ]
    return "\n".join(lines)


def _row(one: Found, judge: str) -> str:
    own, known = one.chances.get(judge), one.chances["p-true"]
    figures = (own.mean_p, own.ece, own.auc) if own else (None, None, None)
    cells = [
        f"{one.family} ({one.tasks:,})",
        f"{known.n:,}",
        _figure(known.right_rate),
        judge,
        *map(_figure, figures),
        f"{one.apart[judge].n:,}",
        with_interval(one.apart[judge]),
        f"{one.seconds:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _curve(one: Found) -> str:
    """The critic's reliability curve."""
    bins = one.chances["critic"].bins
    cells = [f"{_figure(part.right_rate)} ({part.n:,})" if part.n else "–" for part in bins]
    return f"| {one.family} | {' | '.join(cells)} |"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    engine = load_engine(flags.model)
    found = []
    for family in flags.family or (*FAMILIES, DEMO):
        found.append(judged(family, engine, flags))
        print(f"{family}: {found[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    old = flags.output.read_text(encoding="utf-8") if flags.output.is_file() else ""
    made = table(found, flags.model, engine.policy, flags.seed)
    flags.output.write_text(page(old, made), encoding="utf-8")
    print(f"{flags.output} written", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tasks", type=int, default=100, help="per family (default: 100)")
    parser.add_argument("--answers", type=int, default=8, help="per task (default: 8)")
    parser.add_argument("--max-new-tokens", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--family", action="append", choices=(*FAMILIES, DEMO), help="repeatable; default: all"
    )
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    return parser


if __name__ == "__main__":
    sys.exit(main())
