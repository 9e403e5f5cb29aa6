"""Which task is trained on, which decides, which measures; and which tasks a round draws.

Everything here depends on the seed and the tasks' ids, not on their order in a file: the first distinct
prompts of a generated source are its easy ones, and a split by row puts repeats on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from selfrefine.errors import ConfigError, DataError
from selfrefine.records import Task, prompt_key
from selfrefine.seeds import derive


class Splits(Struct, frozen=True, kw_only=True):
    train: tuple[Task, ...]
    gate: tuple[Task, ...]
    test: tuple[Task, ...]


def dedupe(tasks: Iterable[Task]) -> tuple[list[Task], int]:
    """The first task of each normalised prompt, and how many repeats were dropped."""
    first: dict[str, Task] = {}
    rows = 0
    for task in tasks:
        rows += 1
        first.setdefault(prompt_key(task.prompt), task)
    return list(first.values()), rows - len(first)


def split(tasks: Iterable[Task], seed: int, gate: float, test: float, train: int | None = None) -> Splits:
    """Disjoint splits, stratified by tags.difficulty. `gate` and `test` are counts (int) or shares of the
    distinct tasks (float below 1); `train` is a count, or None for all the rest.

    Raises: DataError where the distinct tasks do not suffice; ConfigError for a size that is neither.
    """
    if train is not None and train < 1:
        raise ConfigError(f"train must be 1 or more, not {train}")
    distinct, dropped = dedupe(tasks)
    total = len(distinct)
    sizes = {"test": _size("test", test, total), "gate": _size("gate", gate, total)}
    asked = sum(sizes.values()) + (train or 1)
    if asked > total:
        raise DataError(
            f"the source has {total:,} distinct tasks (in {total + dropped:,} rows), "
            f"and the splits need {asked:,}: "
            f"train {train or 'at least 1'}, gate {sizes['gate']}, test {sizes['test']}"
        )
    sizes["train"] = total - sum(sizes.values()) if train is None else train
    ordered = _stratified(distinct, seed)
    parts: dict[str, tuple[Task, ...]] = {}
    start = 0
    for name, size in sizes.items():
        parts[name] = tuple(ordered[start : start + size])
        start += size
    return Splits(**parts)


def draw(
    train: Sequence[Task],
    round_index: int,
    per_round: int,
    seed: int,
    weight: Callable[[Task], float] | None = None,
) -> tuple[list[Task], bool]:
    """The tasks of round `round_index` (from 1), and whether a new, reshuffled pass over train begins in it.

    Rounds go through all of train before any task comes again. A round at the seam takes what is left, then
    begins the next pass with tasks it does not hold yet: no task twice in a round. Where per_round is more
    than there is, a round is all of train. A pure function: a resumed run draws what it would have drawn.

    With a `weight` (above 0) a round is a draw of its own from all of train, without replacement: a task's
    chance to come next is its share of the weight that is left. A round without weights goes on with the pass
    as if all rounds had. Source: Efraimidis & Spirakis 2006, "Weighted random sampling with a reservoir".
    """
    per_round = min(per_round, len(train))
    if per_round < 1 or round_index < 1:
        raise ConfigError("a round draws at least one task, and rounds count from 1")
    if weight is not None:
        return _weighted(train, round_index, per_round, seed, weight), False
    start = (round_index - 1) * per_round
    order: list[Task] = []
    while len(order) < start + per_round:
        seam = len(order) - len(order) % per_round
        held = {task.id for task in order[seam:]}
        keys = {task.id: derive(seed, "draw", len(order) // len(train), task.id) for task in train}
        order += sorted(train, key=lambda task: (task.id in held, keys[task.id]))
    passes_before = -(-start // len(train))
    passes_after = -(-(start + per_round) // len(train))
    return order[start : start + per_round], passes_after > passes_before > 0


def _weighted(
    train: Sequence[Task], round_index: int, per_round: int, seed: int, weight: Callable[[Task], float]
) -> list[Task]:
    def waits(task: Task) -> tuple[float, str]:
        """An exponential waiting time of rate `weight`: the order of u^(1 / weight), in logs."""
        u = (derive(seed, "weighted-draw", round_index, task.id) + 1) / (2**53 + 1)
        return -math.log(u) / weight(task), task.id

    return sorted(train, key=waits)[:per_round]


def _stratum(task: Task) -> str:
    return task.tags.get("difficulty", "")


def _size(name: str, size: float, total: int) -> int:
    if isinstance(size, int) and size >= 0:
        return size
    if not 0.0 <= size < 1.0:
        raise ConfigError(f"{name} must be a number of tasks or a share below 1, not {size}")
    return max(1, round(size * total)) if size else 0


def _stratified(tasks: Sequence[Task], seed: int) -> list[Task]:
    """A shuffle in which every stretch holds each stratum in proportion.

    Each stratum's tasks, shuffled, are spread evenly over [0, 1), task j of m at a random place in its own
    m-th; cutting the line anywhere then cuts all strata alike, and strata of one task land anywhere.
    """
    strata: dict[str, list[Task]] = {}
    for task in tasks:
        strata.setdefault(_stratum(task), []).append(task)
    placed: list[tuple[float, str, Task]] = []
    for members in strata.values():
        members.sort(key=lambda task: derive(seed, "split", task.id))
        for j, task in enumerate(members):
            jitter = derive(seed, "split", "place", task.id) / 2**53
            placed.append(((j + jitter) / len(members), task.id, task))
    placed.sort(key=lambda place: place[:2])
    return [task for _, _, task in placed]
