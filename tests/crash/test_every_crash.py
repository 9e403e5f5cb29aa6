"""SIGKILL at every numbered failpoint of a whole `selfrefine cycle`, the same command again: equal bytes."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence

import pytest
from world import Point, World

STAGES = ["create", "baseline"]
STAGES += [
    f"{stage} {k}"
    for k in (1, 2)
    for stage in ("generate", "critique", "reward", "select", "finetune", "gate")
]
STAGES += ["final"]
KILLED = -signal.SIGKILL


def survive(world: World, deaths: Sequence[Sequence[int]], names: Sequence[object]) -> None:
    """For each list of failpoints: die at one after the other, then run through, then compare every byte."""
    expected = world.whole.tree()
    cases = [world.case("-".join(map(str, numbers))) for numbers in deaths]
    chains = [
        [*(case.cycle(at=number) for number in numbers), case.cycle()]
        for case, numbers in zip(cases, deaths, strict=True)
    ]
    for case, name, statuses in zip(cases, names, world.forks.run(*chains), strict=True):
        assert statuses[0] == KILLED, f"{name}: {case.said}"
        # A second death may lie behind the end of what was left to do.
        assert set(statuses[1:-1]) <= {KILLED, 0}, f"{name}: {case.said}"
        assert statuses[-1] == 0, f"did not resume after {name}: {case.said}"
        found = case.tree()
        differs = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
        assert not differs, f"other bytes after {name}: {sorted(differs)}"
        case.remove()


def test_the_small_run_passes_every_kind_of_failpoint(world: World) -> None:
    """What the proof below covers: nothing is skipped for speed, and each stage commits more than once."""
    assert [point.number for point in world.points] == list(range(1, len(world.points) + 1))
    assert {point.stage for point in world.points} == set(STAGES)
    names = {point.name for point in world.points}
    assert names >= {
        *("part.half-data", "part.data-synced", "part.half-idx", "part.committed", "part.renamed"),
        *("atomic.half-written", "atomic.before-rename", "create.before-rename", "directory.before-rename"),
        *("replace.built", "replace.old-away", "replace.renamed", "commit.round-json", "link.swapped"),
    }
    for stage in ("generate 1", "critique 1", "generate 2", "critique 2"):
        assert sum(p.name == "part.committed" for p in world.points if p.stage == stage) == 2
    assert world.run(world.whole.job("runs", "verify", "r")) == [0]


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_every_failpoint(world: World, stage: str) -> None:
    points = [point for point in world.points if point.stage == stage]
    survive(world, [[point.number] for point in points], points)


@pytest.mark.long
def test_killed_twice(world: World) -> None:
    """The second death falls into what the first one left to mend, or into anything after it."""
    draw = random.Random(0)
    points: list[Point] = world.points
    pairs: dict[tuple[Point, int], None] = {}  # in the order drawn; no pair is worth two runs
    while len(pairs) < 300:
        first = draw.choice(points)
        left = len(points) - first.number + 8
        # Half of them within the mending itself: that is where two crashes differ from one.
        pairs[first, draw.randint(1, min(left, 12) if draw.random() < 0.5 else left)] = None
    survive(world, [[point.number, second] for point, second in pairs], list(pairs))
