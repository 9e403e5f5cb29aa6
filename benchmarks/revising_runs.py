"""The runs that ask whether revising pays, and what their folders say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from benchmarks import worked
from benchmarks.recipe_runs import result
from benchmarks.reflection_runs import over_seeds
from selfrefine.records import Sample, groups
from selfrefine.runfolder.run import Run
from selfrefine.stages.revisions import RevisionSummary, fresh_as, is_fresh
from selfrefine.stats import Difference, paired_difference

SEEDS = (10, 11, 12)
START = "start"
SUMS = "sums"
WORDS = "words"
HERE = Path(__file__).parent
TASKS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    WORDS: (
        ("--config", "demo-text"),
        (),
        ("critique.source=rewards",),
    ),
    SUMS: (
        ("--tasks", "sums-{seed}.jsonl", "--measure", f"{HERE / 'worked.py'}:check"),
        ("generate.max_new_tokens=48", "tasks.train=600"),
        (f"critique.source={HERE / 'worked.py'}:check",),
    ),
}
"""Words of the command, settings of every run, settings of the runs that revise. `sums-SEED.jsonl` lie in
the folder of the runs, and have no sum in common. The start is two rounds of the configuration's recipe, or,
of sums, a finetune on worked ones: the bare model does not write steps."""
N_SUMS, SHOWN = 900, 400
"""Tasks, and worked sums that the start is trained on: none of these is a task."""
_ATTEMPTS = (
    "cycle.rounds=0",
    "critique.passes=3",
    "critique.revise_from=fault",
    "critique.revision_temperature=1.0",
)
AGAIN = "again"
CONTROLS = {WORDS: f"{HERE / 'covered.py'}:check_again", SUMS: f"{HERE / 'worked.py'}:check_again"}
VARIANTS: dict[str, tuple[str, ...]] = {
    "samples": ("select.corrections=samples", "critique.revision_temperature=1.0"),
    "own": ("select.corrections=own", "critique.revision_temperature=0.7"),
    "near": ("select.corrections=near", "critique.revision_temperature=0.7"),
    "near-40": (
        "select.corrections=near",
        "select.min_similarity=0.4",
        "critique.revision_temperature=0.7",
    ),
    "broken": ("select.corrections=broken", "critique.revision_temperature=0.7"),
    "broken-greedy": ("select.corrections=broken", "critique.revision_temperature=0"),
    "fault": (*_ATTEMPTS,),
    AGAIN: (*_ATTEMPTS,),
    "fault-greedy": (
        *_ATTEMPTS[:-1],
        "generate.temperature=0",
        "critique.revision_temperature=0.7",
    ),
}
"""`samples` is the control of those that are trained: what the recipe did before. `again` is that of `fault`:
as many attempts, stopped in the same way, but whole answers (`CONTROLS`). In `fault-greedy` the draft is the
greedy answer, and asking again greedily gives the same. These three train nothing."""
_REVISING = (
    "cycle.rounds=2",
    "cycle.prompts_per_round=96",
    "generate.n=4",
    "tasks.test=200",
    "tasks.gate=1",
    "gate.mode=off",
    "critique.feedback=none",
    "critique.revise_prompt=mend",
    "critique.control=false",
    "select.learn=revisions",
    "evaluate.revise=end",
)


class Runs(Struct, frozen=True, kw_only=True):
    """What is asked for: of each task and seed a start, and from it the variants."""

    folder: Path
    tasks: tuple[str, ...] = (WORDS, SUMS)
    variants: tuple[str, ...] = tuple(VARIANTS)
    seeds: tuple[int, ...] = SEEDS
    model: str = "smollm2"

    @property
    def jobs(self) -> list[tuple[str, int]]:
        """Names are TASK-VARIANT. A start comes before what begins with it."""
        return [
            (f"{task}-{variant}", seed)
            for seed in self.seeds
            for task in self.tasks
            for variant in (START, *self.variants)
        ]

    def path(self, name: str, seed: int) -> Path:
        return self.folder / f"{name}-s{seed}"

    def command(self, name: str, seed: int) -> list[str]:
        """Raises: KeyError for a name that is none."""
        task, _, variant = name.partition("-")
        words, settings, revising = TASKS[task]
        words = tuple(str(self.sums(seed)) if word.endswith(".jsonl") else word for word in words)
        to, begin = self.path(name, seed), self.start(task, seed) / "adapter"
        if variant != START:
            words = ("cycle", *words, "--recipe", "learn-to-revise", "--run", str(to))
            settings = (*settings, f"adapter={begin}", *_REVISING, *revising, *VARIANTS[variant])
            settings += (f"critique.source={CONTROLS[task]}",) if variant == AGAIN else ()
            # Other tasks than the start was trained on.
            seed += 100
        elif task == SUMS:
            words = ("finetune", str(self.folder / "shown.jsonl"), "--select", "all", "-o", str(begin))
            settings = ("train.epochs=3", "train.lr=3e-4")
        else:
            words = ("cycle", *words, "--run", str(to))
            settings = (*settings, "cycle.rounds=2", "gate.mode=off", "tasks.test=1")
        words = (*words, "--model", self.model, "--seed", str(seed))
        return [*words, *(word for text in settings for word in ("--set", text))]

    def sums(self, seed: int) -> Path:
        return self.folder / f"sums-{seed}.jsonl"

    def write_tasks(self) -> None:
        """Sums for each seed, and those that the start is shown; what is there stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        none: list[str] = []
        files = [(self.sums(seed), N_SUMS, none) for seed in SEEDS]
        files.insert(1, (self.folder / "shown.jsonl", SHOWN, ["--answers"]))
        skip = 0
        for file, n, more in files:
            if not file.is_file():
                worked.main([str(file), "-n", str(n), "--skip", str(skip), *more])
            skip += n

    def start(self, task: str, seed: int) -> Path:
        """Sums have one for all seeds: a finetune on the same rows would hardly be another."""
        return self.path(f"{task}-{START}", SEEDS[0] if task == SUMS else seed)

    def is_done(self, name: str, seed: int) -> bool:
        if name == f"{SUMS}-{START}":
            return (self.start(SUMS, seed) / "adapter").is_dir()
        return result(self, name, seed).finished


class Kept(Struct, frozen=True, kw_only=True):
    """Who may ask the rewards keeps the better of two texts: the draft and its revision, or the draft and a
    fresh sample. `revision_minus_fresh` is paired by task, over the revised ones."""

    revision: float | None
    fresh: float | None
    revision_minus_fresh: Difference


class Told(Struct, frozen=True, kw_only=True):
    """A run's comparison on its test tasks. `changes`: revision minus the better fresh arm, by task."""

    summary: RevisionSummary
    kept: Kept
    changes: dict[str, float]


def told(run: Run) -> Told | None:
    """None where it has not come to its end."""
    if not run.final.has("revised"):
        return None
    summary = run.final.stage_summary("revised", RevisionSummary)
    if summary is None:
        return None
    threads = [group for group in groups(list(run.final.samples("revised"))) if _is_revised(group)]
    fresh = {group[0].task.id: _fresh(group, summary.fresh_as) for group in threads}
    revision = {group[0].task.id: _thread(group)[-1].reward for group in threads}
    draft = {group[0].task.id: group[0].reward for group in threads}
    changes = {
        key: after - sum(asked) / len(asked)
        for key, asked in fresh.items()
        if asked and (after := revision[key]) is not None
    }
    arms = [{group[0].task.id: _fresh(group, arm) for group in threads} for arm in ("drafts", "revisions")]
    own = [{key: found for key in changes if (found := arm.get(key))} for arm in arms]
    return Told(summary=summary, kept=kept_best(draft, revision, own), changes=changes)


def kept_best(
    draft: Mapping[str, float | None],
    revision: Mapping[str, float | None],
    arms: Sequence[Mapping[str, Sequence[float]]],
) -> Kept:
    """Beside the fresh samples that are best to keep from. It need not be the arm with the better mean:
    greedy ones are good, and give the draft again."""
    return max((kept(draft, revision, arm) for arm in arms), key=lambda one: one.fresh or 0.0)


def kept(
    draft: Mapping[str, float | None],
    revision: Mapping[str, float | None],
    fresh: Mapping[str, Sequence[float]],
) -> Kept:
    """By task. Of several fresh samples the mean: each alone would have cost what the revision did."""
    best = {key: max(draft[key] or 0.0, revision[key] or 0.0) for key in fresh}
    again = {key: sum(max(draft[key] or 0.0, one) for one in own) / len(own) for key, own in fresh.items()}
    return Kept(
        revision=_mean(list(best.values())),
        fresh=_mean(list(again.values())),
        revision_minus_fresh=paired_difference(again, best),
    )


def together(seeds: Sequence[Told]) -> tuple[Difference, tuple[float | None, float | None]]:
    """All tasks of all seeds, with the seeds as given; and the interval over tasks and seeds."""
    changes = {f"{k}/{key}": value for k, one in enumerate(seeds) for key, value in one.changes.items()}
    difference = paired_difference(dict.fromkeys(changes, 0.0), changes)
    return difference, over_seeds([list(one.changes.values()) for one in seeds])


def _is_revised(group: Sequence[Sample]) -> bool:
    return len(_thread(group)) > 1


def _thread(group: Sequence[Sample]) -> list[Sample]:
    return [row for row in group if not is_fresh(row)]


def _fresh(group: Sequence[Sample], arm: str | None) -> list[float]:
    return [row.reward for row in group if fresh_as(row) == arm and row.reward is not None] if arm else []


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
