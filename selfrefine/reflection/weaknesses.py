"""Which tasks a policy fails: cells by tag, by failure kind, by learnability, and slices that were found.

The unit is the task, with the mean reward of its samples: samples of one prompt are not independent, and a
test over them would find whatever prompt was sampled most. Gate and training tasks are cut at the same
edges and by the same words, so a cell has one name on both.

The test. Is a slice worse than the rest? The tasks are split into low and high ones where that comes
nearest to halves (right and wrong, where rewards are 0 and 1), and Fisher's exact test says how likely so
few high ones are in the slice: exact however small or skewed the rewards are, unlike a rank test's normal
approximation. For graded rewards it is Mood's median test. All slices of both splits are corrected together.

Sources: Mood 1950, "Introduction to the theory of statistics"; Benjamini & Hochberg 1995; leaving out what
an earlier slice explains: Lavrač et al. 2004, "Subgroup discovery with CN2-SD".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from selfrefine.records import Sample, Task, groups
from selfrefine.reflection import slices
from selfrefine.reflection.failures import failed, kind_of, passes
from selfrefine.reflection.findings import Cell, FailureKind, Learnability, Slice, Weaknesses
from selfrefine.reflection.significance import benjamini_hochberg, fewer
from selfrefine.stats import Interval, interval, wilson
from selfrefine.steps.critique_outcome import RIGHT
from selfrefine.words import count

MOST = 20
"""Cells of a kind that are kept for a split."""
HEAVIEST = 8
ENOUGH = 2 * slices.FEW
"""Scored tasks that a split needs to be tested."""
_EXAMPLES = 3
_BOOTSTRAP = 2_000
"""Up to so many graded tasks an interval is bootstrapped; for more it takes long, and a mean is normal."""
_Z = 1.959963984540054


@dataclass
class _Split:
    """One split's tasks in order of their ids; rewards_N is NaN where a task has no score."""

    name: str
    groups: list[list[Sample]]
    rewards_N: NDArray[np.float64]
    numbers: Mapping[str, int]
    """Task id to its number among the tasks of both splits."""
    cells: list[Cell] = field(default_factory=list)
    members: dict[str, slices.Tasks] = field(default_factory=dict)
    """Of each slice, by name, the scored tasks."""

    @property
    def scored(self) -> slices.Tasks:
        return np.flatnonzero(~np.isnan(self.rewards_N))


def find(
    gate: Sequence[Sample],
    train: Sequence[Sample],
    *,
    after_round: int,
    seed: int,
    passing: float = RIGHT,
    level: float = 0.05,
) -> Weaknesses:
    """Where the accepted policy (gate) and the last round's samples (train) fail, in any order of rows.

    passing: the run's `select.min_reward`, in [0, 1]; without one only the full reward is right. `seed` draws
    the resamples of intervals. Either side may be empty. Revisions are left out: they answer a critique.
    """
    notes: list[str] = []
    tasks = _tasks([*gate, *train])
    numbers = {task.id: i for i, task in enumerate(tasks)}
    both = [_split("gate", gate, numbers, notes), _split("train", train, numbers, notes)]
    found = slices.cut(tasks)
    looked_at = _test(both, found, level, notes)
    for split in both:
        split.cells = [_finished(split, cell, seed) for cell in _worth_showing(split.cells, level)]
        split.cells += _by_failure(split, passing, seed)
    both[1].cells += _by_learnability(both[1], passing)
    heaviest = _heaviest(both, level)
    return Weaknesses(
        after_round=after_round,
        gate=tuple(both[0].cells),
        train=tuple(both[1].cells),
        heaviest=tuple(heaviest),
        looked_at=looked_at,
        level=level,
        notes=tuple(notes),
    )


def _tasks(rows: Iterable[Sample]) -> list[Task]:
    by_id: dict[str, Task] = {}
    for row in rows:
        by_id.setdefault(row.task.id, row.task)
    return [by_id[key] for key in sorted(by_id)]


def drafts(rows: Sequence[Sample]) -> list[list[Sample]]:
    """The answers to each task without revisions, in order of ids: nothing hangs on the order of rows."""
    own = sorted((row for row in rows if row.parent_id is None), key=lambda row: (row.task.id, row.id))
    return groups(own)


def _split(name: str, rows: Sequence[Sample], numbers: Mapping[str, int], notes: list[str]) -> _Split:
    by_task = drafts(rows)
    means = [[row.reward for row in group if row.reward is not None] for group in by_task]
    rewards_N = np.array([math.fsum(own) / len(own) if own else math.nan for own in means], dtype=np.float64)
    said, n_scored = f"{name}: ", int(np.count_nonzero(~np.isnan(rewards_N)))
    n_rows = sum(map(len, by_task))
    if not rows:
        notes.append(f"{said}there are no answers.")
    elif not n_rows:
        notes.append(f"{said}all {len(rows):,} answers are revisions, which are not looked at.")
    else:
        if left := len(rows) - n_rows:
            notes.append(
                f"{said}{count(left, 'revision')} left out; they answer a critique, not the task alone."
            )
        if not n_scored:
            notes.append(f"{said}no answer has a reward, so nothing can be said of its tasks.")
        elif left := len(by_task) - n_scored:
            notes.append(f"{said}{count(left, 'task')} without a reward left out of rates and tests.")
    return _Split(name, by_task, rewards_N, numbers)


def _test(
    both: Sequence[_Split], found: Mapping[str, tuple[Slice, slices.Tasks]], level: float, notes: list[str]
) -> int:
    """Adds to each split a cell for each slice, with p and q; returns how many were tested."""
    tested: list[tuple[_Split, int]] = []
    p_values: list[float] = []
    for split in both:
        own = np.array([split.numbers[group[0].task.id] for group in split.groups], dtype=np.int64)
        # From numbers among all tasks to those of the split.
        place = np.full(len(split.numbers), -1, dtype=np.int64)
        place[own[split.scored]] = split.scored
        scores = split.rewards_N
        for name, (cut, tasks) in found.items():
            members = place[tasks]
            members = members[members >= 0]
            if not len(members):
                continue
            split.members[name] = members
            split.cells.append(_cell(split, name, cut, members))
        high_N = _high(scores[split.scored])
        if (why := _why_untested(split, high_N)) is not None:
            if len(split.scored):
                notes.append(f"{split.name}: {why}")
            continue
        is_high = np.zeros(len(scores), dtype=bool)
        is_high[split.scored] = high_N
        usable = [i for i, cell in enumerate(split.cells) if _enough(len(split.scored), cell.n)]
        inside = [split.members[split.cells[i].name] for i in usable]
        hits = [int(is_high[members].sum()) for members in inside]
        p_values += fewer(hits, [len(members) for members in inside], int(high_N.sum()), len(high_N))
        tested += [(split, i) for i in usable]
    for (split, i), p, q in zip(tested, p_values, benjamini_hochberg(p_values), strict=True):
        split.cells[i] = replace(split.cells[i], p_value=p, q_value=q)
    return len(tested)


def _enough(tasks: int, inside: int) -> bool:
    return slices.FEW <= inside <= tasks - slices.FEW


def _high(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which tasks count as high: above the value that splits them nearest to halves, of equals the lower."""
    values, counts = np.unique(scores, return_counts=True)
    if len(values) < 2:
        return np.ones(len(scores), dtype=bool)
    below = np.cumsum(counts)[:-1]
    edge = float(values[int(np.argmin(np.abs(2 * below - len(scores))))])
    return np.greater(scores, edge)


def _why_untested(split: _Split, high_N: NDArray[np.bool_]) -> str | None:
    n = len(split.scored)
    if n < ENOUGH:
        return f"{count(n, 'scored task')}, too few to test a slice (at least {ENOUGH})."
    if high_N.all():
        mean = float(split.rewards_N[split.scored][0])
        what = "right" if mean >= RIGHT else f"at a mean reward of {mean:.3f}"
        return f"all {n:,} tasks are {what}, so no slice can be worse than the rest."
    return None


def _cell(split: _Split, name: str, cut: Slice, members: slices.Tasks) -> Cell:
    scores = split.rewards_N[split.scored]
    inside = split.rewards_N[members]
    missing, total = float(np.sum(1 - inside)), float(np.sum(1 - scores))
    others = len(scores) - len(members)
    weight = missing / total if total > 0 else 0.0
    return Cell(
        name=name,
        by="tag" if cut.by == "tag" else "found",
        slice=cut,
        n=len(members),
        rate=float(inside.mean()),
        rest=float((scores.sum() - inside.sum()) / others) if others else None,
        weight=weight,
        excess=weight - len(members) / len(scores) if total > 0 else 0.0,
    )


def _order(cell: Cell) -> tuple[float, str]:
    return (-round(cell.excess, 12), cell.name)  # sums of floats differ in the last digit


def _worth_showing(cells: Sequence[Cell], level: float) -> list[Cell]:
    """The tags, and what was found: significant slices first, both by excess; of n-grams only those that
    are weaker than each of their words."""
    by_name = {cell.slice.key: cell for cell in cells if cell.slice is not None and cell.slice.by == "word"}
    tags = sorted((cell for cell in cells if cell.by == "tag"), key=_order)
    found = sorted(
        (cell for cell in cells if cell.by == "found" and not _adds_nothing(cell, by_name)),
        key=lambda cell: (not _is_weak(cell, level), *_order(cell)),
    )
    return [*tags[:MOST], *found[:MOST]]


def _adds_nothing(cell: Cell, by_word: Mapping[str, Cell]) -> bool:
    """An n-gram beside a word (or a shorter n-gram) of it that misses more than it does."""
    if cell.slice is None or cell.slice.by != "word" or " " not in cell.slice.key:
        return False
    parts = cell.slice.key.split(" ")
    shorter = [parts[i : i + n] for n in range(1, len(parts)) for i in range(len(parts) - n + 1)]
    beside = [own for part in shorter if (own := by_word.get(" ".join(part))) is not None]
    return any(_order(own)[0] <= _order(cell)[0] for own in beside)


def _is_weak(cell: Cell, level: float) -> bool:
    return cell.q_value is not None and cell.q_value < level


def _finished(split: _Split, cell: Cell, seed: int) -> Cell:
    """With interval and examples, which are worth making only for what is kept."""
    members = split.members[cell.name]
    found = _interval(split.rewards_N[members], seed)
    worst = members[np.argsort(split.rewards_N[members], kind="stable")][:_EXAMPLES]
    return replace(cell, lo=found.lo, hi=found.hi, examples=tuple(_worst(split.groups[i]).id for i in worst))


def _worst(group: Sequence[Sample]) -> Sample:
    return min(group, key=lambda row: (2.0 if row.reward is None else row.reward, row.id))


def _interval(values_N: NDArray[np.float64], seed: int) -> Interval:
    n = len(values_N)
    if n <= _BOOTSTRAP or bool(np.all((values_N == 0) | (values_N == 1))):
        return interval([float(value) for value in values_N], seed)
    mean, half = float(values_N.mean()), _Z * float(values_N.std(ddof=1)) / math.sqrt(n)
    return Interval(mean=mean, lo=max(0.0, mean - half), hi=min(1.0, mean + half), n=n, method="normal")


def _by_failure(split: _Split, passing: float, seed: int) -> list[Cell]:
    """A cell for each kind that occurs. The interval is over tasks: their answers go together."""
    n_groups = len(split.groups)
    shares: dict[FailureKind, NDArray[np.float64]] = {}
    rows: dict[FailureKind, list[str]] = {}
    judged = np.zeros(n_groups, dtype=bool)
    for i, group in enumerate(split.groups):
        seen = [row for row in group if row.reward is not None or failed(row, passing)]
        judged[i] = bool(seen)
        for row in seen:
            if (kind := kind_of(row, passing)) is not None:
                if kind not in rows:
                    shares[kind], rows[kind] = np.zeros(n_groups), []
                shares[kind][i] += 1 / len(seen)
                rows[kind].append(row.id)
    n_failed = sum(map(len, rows.values()))
    cells = []
    for kind in get_args(FailureKind):
        if kind in rows:
            # A share of 8/8 adds up to a little less than 1.
            found = _interval(np.round(shares[kind][judged], 12), seed)
            cells.append(
                Cell(
                    name=kind,
                    by="failure",
                    n=len(rows[kind]),
                    rate=found.mean,
                    lo=found.lo,
                    hi=found.hi,
                    weight=len(rows[kind]) / n_failed,
                    examples=tuple(rows[kind][:_EXAMPLES]),
                )
            )
    return sorted(cells, key=lambda cell: (-cell.weight, cell.name))


def _by_learnability(split: _Split, passing: float) -> list[Cell]:
    """Of the tasks with a score, how many were never, sometimes and always right."""
    if not len(split.scored):
        return []
    sorts: dict[Learnability, list[int]] = {sort: [] for sort in get_args(Learnability)}
    for i in split.scored:
        sorts[learnability(split.groups[i], passing)].append(int(i))
    total = float(np.sum(1 - split.rewards_N[split.scored]))
    cells = []
    for sort, members in sorts.items():
        lo, hi = wilson(len(members), len(split.scored))
        missing = float(np.sum(1 - split.rewards_N[members]))
        share = len(members) / len(split.scored)
        weight = missing / total if total > 0 else 0.0
        cells.append(
            Cell(
                name=sort,
                by="learnability",
                n=len(members),
                rate=share,
                lo=lo,
                hi=hi,
                weight=weight,
                excess=weight - share if total > 0 else 0.0,
                examples=tuple(_worst(split.groups[i]).id for i in members[:_EXAMPLES]),
            )
        )
    return cells


def learnability(group: Sequence[Sample], passing: float = RIGHT) -> Learnability:
    """Of one task's samples. Those without a score say nothing, and one at least must have one."""
    right = [passes(row.reward, passing) for row in group if row.reward is not None]
    return "always right" if all(right) else "sometimes right" if any(right) else "never right"


def _heaviest(both: Sequence[_Split], level: float) -> list[str]:
    """On each split by excess, each slice still weak in the tasks outside those before it; then together."""
    best: dict[str, float] = {}
    for split in both:
        for cell in _distinct(split, level):
            best[cell.name] = max(best.get(cell.name, 0.0), cell.excess)
    return sorted(best, key=lambda name: (-round(best[name], 12), name))[:HEAVIEST]


def _distinct(split: _Split, level: float) -> list[Cell]:
    weak = sorted((c for c in split.cells if c.by in ("tag", "found") and _is_weak(c, level)), key=_order)
    left = np.zeros(len(split.rewards_N), dtype=bool)
    left[split.scored] = True
    kept: list[Cell] = []
    for cell in weak:
        inside = split.members[cell.name]
        if kept and not _weak_in(split, inside[left[inside]], left, level):
            continue
        kept.append(cell)
        left[inside] = False
    return kept


def _weak_in(split: _Split, inside: slices.Tasks, left: NDArray[np.bool_], level: float) -> bool:
    """The same test among the tasks that are left; what it looks at is known to be weak, so p is enough."""
    pool = np.flatnonzero(left)
    if not _enough(len(pool), len(inside)):
        return False
    high_N = np.zeros(len(left), dtype=bool)
    high_N[pool] = _high(split.rewards_N[pool])
    if high_N[pool].all():
        return False
    hits = int(high_N[inside].sum())
    return fewer([hits], [len(inside)], int(high_N.sum()), len(pool))[0] < level
