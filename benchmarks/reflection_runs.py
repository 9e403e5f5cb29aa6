"""The runs of the comparison of plan on with plan off, and what their folders say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from benchmarks.recipe_runs import Result, result
from selfrefine.reflection.findings import Plan
from selfrefine.runfolder.run import Run
from selfrefine.seeds import derive, generator
from selfrefine.stats import Comparison, Scores, compare
from selfrefine.steps.evaluate import per_task

SEEDS = (0, 1, 2)
ARMS = ("off", "on")
MIXTURE = "mixture"
DEMO = "demo"
ROUNDS = 8
RECIPE = "expert-iteration"
MIXED = (
    "tasks.suffix= Answer with just the result.",
    "tasks.gate=80",
    "tasks.test=240",
    "generate.max_new_tokens=24",
    "cycle.prompts_per_round=64",
    "guards.probe=false",
    "gate.mode=off",
)
"""Of the runs on the mixture. `gate.mode`: with so few gate tasks most rounds are undecided, and a run whose
rounds all are ends with the policy it began with, plan or not. `guards.probe`: 24 general texts would be
scored after each round."""
RESAMPLES = 10_000


class Runs(Struct, frozen=True, kw_only=True):
    """What is asked for. `budget`: tokens, sampled (trying hints included) and trained, from which on no
    round begins; measuring is not counted."""

    folder: Path
    tasks: Path
    """The mixture's file."""
    budget: int = 20_000
    model: str = "smollm2"
    seeds: tuple[int, ...] = SEEDS
    demo_seeds: tuple[int, ...] = ()
    sets: tuple[str, ...] = ()

    @property
    def jobs(self) -> list[tuple[str, int]]:
        """Seed by seed, so that a comparison is paired as soon as it can be."""
        mixed = [(f"{MIXTURE}-{arm}", seed) for seed in self.seeds for arm in ARMS]
        return mixed + [(f"{DEMO}-{arm}", seed) for seed in self.demo_seeds for arm in ARMS]

    def path(self, name: str, seed: int) -> Path:
        return self.folder / f"{name}-s{seed}"

    def command(self, name: str, seed: int) -> list[str]:
        task, _, arm = name.rpartition("-")
        words = ["cycle", "--model", self.model, "--run", str(self.path(name, seed)), "--seed", str(seed)]
        words += ["--plan", "auto" if arm == "on" else "off"]
        if task == DEMO:
            words += ["--config", "demo"]
        else:
            words += ["--recipe", RECIPE, "--tasks", str(self.tasks), "--measure", "gym"]
            words += ["--rounds", str(ROUNDS), "--set", f"cycle.max_tokens={self.budget}"]
            words += ["--set", "cycle.patience=1000"]
            words += [word for text in MIXED for word in ("--set", text)]
        return [*words, *(word for text in self.sets for word in ("--set", text))]


def found(runs: Runs, name: str, seed: int) -> Result:
    return result(runs, name, seed)


class Paired(Struct, frozen=True, kw_only=True):
    """Plan on minus plan off on the test tasks, at the end: for each seed, and over all of them."""

    seeds: dict[int, Comparison]
    together: Comparison
    """All tasks of all seeds; its interval takes the seeds as given."""
    lo: float | None
    hi: float | None
    """Over tasks and seeds: with other seeds it might lie here."""


def paired(runs: Runs, task: str, seeds: Sequence[int]) -> Paired | None:
    """Of the seeds with both runs finished; None where there is none."""
    ends: dict[int, tuple[Scores, Scores]] = {}
    for seed in seeds:
        if all(found(runs, f"{task}-{arm}", seed).end is not None for arm in ARMS):
            off, on = (final_scores(runs, f"{task}-{arm}", seed) for arm in ARMS)
            ends[seed] = (off, on)
    if not ends:
        return None
    all_off, all_on = (
        {f"{s}/{key}": value for s, two in ends.items() for key, value in two[i].items()} for i in (0, 1)
    )
    changes = [
        [a - b for key, b in off.items() if b is not None and (a := on.get(key)) is not None]
        for off, on in ends.values()
    ]
    lo, hi = over_seeds(changes)
    return Paired(
        seeds={seed: compare(off, on, seed) for seed, (off, on) in ends.items()},
        together=compare(all_off, all_on),
        lo=lo,
        hi=hi,
    )


def final_scores(runs: Runs, name: str, seed: int) -> dict[str, float | None]:
    """The accepted policy's reward on each test task."""
    return per_task(Run.open(runs.path(name, seed)).final.samples("test"))


def over_seeds(changes: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
    """The 95 % interval of the mean change: seeds are drawn with replacement, then each one's tasks.

    changes: by seed, by task. With one seed there is nothing to draw from, and no interval.
    Source: Davison & Hinkley 1997, "Bootstrap methods and their application", section 3.8.
    """
    if len(changes) < 2 or not all(changes):
        return None, None
    rng = generator(derive(0, "bootstrap", "seeds and tasks"))
    data = [np.array(one) for one in changes]
    means = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(data), size=len(data))
        means.append(np.mean([rng.choice(data[i], size=len(data[i])).mean() for i in drawn]))
    lo, hi = np.quantile(means, (0.025, 0.975))
    return float(lo), float(hi)


def by_dataset(runs: Runs, seeds: Sequence[int]) -> dict[str, list[float | None]]:
    """Dataset to its means on the test tasks of all seeds: at the start, at the end with plan off, and on."""
    sums: dict[str, list[list[float]]] = {}
    for seed in seeds:
        if not all(found(runs, f"{MIXTURE}-{arm}", seed).end is not None for arm in ARMS):
            continue
        off, on = (Run.open(runs.path(f"{MIXTURE}-{arm}", seed)) for arm in ARMS)
        for i, folder in enumerate((off.round(0), off.final, on.final)):
            for row in folder.samples("test"):
                cell = sums.setdefault(row.task.tags["dataset"], [[], [], []])
                if row.reward is not None:
                    cell[i].append(row.reward)
    return {
        name: [sum(one) / len(one) if one else None for one in cell] for name, cell in sorted(sums.items())
    }


def plans(runs: Runs, name: str, seed: int) -> list[Plan]:
    """What the run planned, round by round."""
    path = runs.path(name, seed)
    files = sorted(path.glob("round-*/plan.json")) if path.is_dir() else []
    return [msgspec.json.decode(file.read_bytes(), type=Plan) for file in files]
