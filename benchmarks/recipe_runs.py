"""The runs of a comparison of recipes: what each is asked for, and what its folder says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from selfrefine import recipes
from selfrefine.errors import RunFolderError
from selfrefine.reflection.overview import round_seconds, test_gain
from selfrefine.report.ending import revised
from selfrefine.report.tables import final_row
from selfrefine.runfolder.run import Run
from selfrefine.stages.revisions import RevisionSummary
from selfrefine.stats import Comparison, Difference, Interval, compare
from selfrefine.steps.evaluate import per_task

SEEDS = (0, 1, 2)
ROUNDS = 6
PLACEBO = "placebo"
REFERENCE = "expert-iteration"
"""What the others are compared with: `make demo` adds the hint of STaR to it (a test holds it to that)."""
ON_TEXT = "learn-to-revise@demo-text"
"""Sums leave nothing to revise; four words that must be in a sentence do. A name may end in @CONFIG."""
CHAINED = ("constitutional+constitutional-dpo", f"{REFERENCE}+sabotage")
"""FIRST+SECOND: the second starts from the first's adapter. The halves of one method; and a sabotage of a
policy that has something to lose, as one that can do nothing yet learns the form from wrong answers too."""


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
    measured: int | None = None
    """Sampled on held-out tasks during the rounds."""
    minutes: float | None = None
    """All stages, measuring included."""
    revised: RevisionSummary | None = None
    revised_start: RevisionSummary | None = None


class Plan(Struct, frozen=True, kw_only=True):
    """What is asked for. `budget`: tokens, sampled and trained, from which on no round begins."""

    folder: Path
    config: str = "demo"
    model: str = "smollm2"
    budget: int = 100_000
    only: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = SEEDS
    """The first is every recipe's; the others those of the best."""
    as_configured: bool = False
    """As many rounds as the configuration says, whatever they take."""

    @property
    def names(self) -> list[str]:
        """What a chain begins with stands before it."""
        asked = self.only or (*recipes.names(), ON_TEXT, *CHAINED)
        return list(dict.fromkeys(name for one in asked for name in (one.rpartition("+")[0], one) if name))

    def own_size(self) -> Plan:
        """The same task as `make demo` runs it. A gain at one size need not be one at another."""
        return msgspec.structs.replace(self, folder=self.folder / "own-size", sets=(), as_configured=True)

    def path(self, name: str, seed: int) -> Path:
        return self.folder / f"{name.replace('@', '-on-').replace('+', '-then-')}-s{seed}"

    def command(self, name: str, seed: int) -> list[str]:
        """The budget is the end, or ROUNDS, over which the gate spends its alpha: none gives up early.

        Raises: RunFolderError: the first of a chain has trained no adapter.
        """
        first, _, second = name.rpartition("+")
        recipe, _, config = second.partition("@")
        words = ["cycle", "--recipe", recipe, "--config", config or self.config, "--model", self.model]
        words += ["--run", str(self.path(name, seed)), "--seed", str(seed)]
        if not self.as_configured and recipes.read(recipe).table.get("cycle", {}).get("rounds") != 0:
            words += ["--rounds", str(ROUNDS), "--set", f"cycle.max_tokens={self.budget}"]
            words += ["--set", "cycle.patience=1000"]
        if first:
            words += ["--set", f"adapter={adapter(self.path(first, seed))}"]
        return [*words, *(word for text in self.sets for word in ("--set", text))]


def adapter(path: Path) -> Path:
    """The accepted policy's; where no round was kept, the last one's: a chain is to have its first half.

    Raises: RunFolderError: nothing was trained.
    """
    rounds = [path / "adapter", *(one.path / "adapter" for one in reversed(Run.open(path).rounds()))]
    for one in rounds:
        if one.is_dir():
            return one.resolve()
    raise RunFolderError(f"{path} has no adapter to start from")


class Jobs(Protocol):
    """What runs can be made and read of: a name and a seed are one run."""

    def path(self, name: str, seed: int) -> Path: ...

    def command(self, name: str, seed: int) -> list[str]: ...


def result(plan: Jobs, recipe: str, seed: int) -> Result:
    path = plan.path(recipe, seed)
    failed = path.with_name(f"{path.name}.failed")
    if failed.is_file():
        return Result(recipe=recipe, seed=seed, ended=failed.read_text().strip(), finished=True)
    try:
        run = Run.open(path)
    except RunFolderError:
        return Result(recipe=recipe, seed=seed, ended="not started", finished=False)
    summaries = [folder.summary() for folder in run.rounds()]
    # A round that found nothing to learn has sampled for that.
    cost = sum((one.cost for one in summaries), start=run.round(len(summaries)).cost())
    final = final_row(run)
    ends = [event for event in run.events.read() if event.get("kind") == "end"]
    told = revised(run.final)
    start = summaries[0].measures.get("test") if summaries else None
    untrained = run.manifest.config["cycle"]["rounds"] == 0
    asked = told.tokens.draft + told.tokens.critique + told.tokens.revision if told else None
    return Result(
        recipe=recipe,
        seed=seed,
        ended=ends[-1]["why"] if ends and final else "unfinished",
        finished=bool(ends and final),
        start=start,
        end=final.test if final else None,
        gain=test_gain(run) if final else None,
        rounds=max(0, len(summaries) - 1),
        accepted=sum(one.gate is not None and one.gate.accepted for one in summaries),
        tokens=asked if untrained and asked is not None else cost.spent,
        measured=cost.measured_tokens,
        minutes=_seconds(run) / 60,
        revised=told,
        revised_start=revised(run.round(0)),
    )


def _seconds(run: Run) -> float:
    """Of all stages; those of the final measurement belong to no round."""
    final = [
        e["seconds"] for e in run.events.read() if e.get("kind") == "stage-end" and e["round"] == "final"
    ]
    return float(sum(round_seconds(run).values()) + sum(final))


class Pairing(Struct, frozen=True, kw_only=True):
    """A recipe against the reference, paired by test task: for each seed, and all of them together."""

    recipe: str
    seeds: list[Comparison]
    together: Comparison
    minutes: tuple[float, float]
    """Of its runs, and of the reference's."""


def against_reference(plan: Plan, found: Sequence[Result]) -> list[Pairing]:
    """Of the recipes with all seeds."""
    done = {(one.recipe, one.seed): one for one in found if one.finished and one.gain is not None}
    pairings = []
    for name in dict.fromkeys(one.recipe for one in found):
        both = (REFERENCE, name)
        if name == REFERENCE or not all((recipe, s) in done for recipe in both for s in plan.seeds):
            continue
        seeds, sides = [], (dict[str, float | None](), dict[str, float | None]())
        for seed in plan.seeds:
            ends = [per_task(Run.open(plan.path(recipe, seed)).final.samples("test")) for recipe in both]
            seeds.append(compare(ends[0], ends[1], seed))
            for side, scores in zip(sides, ends, strict=True):
                side.update({f"{seed}/{key}": value for key, value in scores.items()})
        base, own = (sum(done[recipe, s].minutes or 0.0 for s in plan.seeds) for recipe in both)
        pairings.append(Pairing(recipe=name, seeds=seeds, together=compare(*sides), minutes=(own, base)))
    return pairings


def rivals(plan: Plan, found: Sequence[Result]) -> list[str]:
    """Recipes that beat the reference over the seeds: to be run at the demo's size too."""
    return [one.recipe for one in against_reference(plan, found) if (one.together.lo or 0.0) > 0]


def results(plan: Plan, names: Sequence[str]) -> list[Result]:
    """By name and seed: the first seed's in any case, the others' where they were begun."""
    every = [result(plan, name, seed) for name in names for seed in plan.seeds]
    return [one for one in every if one.seed == plan.seeds[0] or one.ended != "not started"]
