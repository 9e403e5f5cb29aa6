"""SIGKILL at every numbered failpoint of a whole `selfrefine cycle`, the same command again: equal bytes."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence

import pytest
from forks import Job
from world import Case, Point, World

STAGES = ["create", "baseline"]
STAGES += [
    f"{stage} {k}"
    for k in (1, 2)
    for stage in ("generate", "critique", "reward", "select", "finetune", "gate")
]
STAGES += ["final"]
KILLED = -signal.SIGKILL


def survive(
    cases: Sequence[Case], chains: Sequence[Sequence[Job]], expected: Case, names: Sequence[object]
) -> None:
    """Every chain begins with a death; where it ends there are the bytes of `expected`."""
    bytes_of = expected.tree()
    for case, name, statuses in zip(cases, names, expected.world.forks.run(*chains), strict=True):
        assert statuses[0] == KILLED, f"{name}: {case.said}"
        # A second death may lie behind the end of what was left to do.
        assert set(statuses[1:-1]) <= {KILLED, 0}, f"{name}: {case.said}"
        last = KILLED if chains[0][-1].until else 0
        assert statuses[-1] == last, f"did not resume after {name}: {case.said}"
        found = case.tree()
        differs = [key for key in bytes_of.keys() | found.keys() if bytes_of.get(key) != found.get(key)]
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
    """Resumed, every fourth goes to the end. The others stop at the door of the stage after the next, with
    the bytes that a run has there which nobody interrupted: what follows from those bytes is the case of that
    stage's own failpoints, which begin with them.
    """
    place = STAGES.index(stage)
    begun = None if place < 2 else world.before(stage)
    # A process that begins here passes other failpoints on its way, so they are counted anew.
    points, log = world.points, world.folder / f"{stage}.log"
    if begun is not None:
        assert world.run(world.case(f"{stage}-log", copy=begun).cycle(log=str(log))) == [0]
        points = world.numbered(log)
    mine = [point for point in points if point.stage == stage]
    assert [p.name for p in mine] == [p.name for p in world.points if p.stage == stage]
    door = STAGES[place + 2] if place + 2 < len(STAGES) else ""
    for until, some in (("", mine[::4]), (door, [p for i, p in enumerate(mine) if i % 4])):
        cases = [world.case(f"{stage}-{point.number}", copy=begun) for point in some]
        chains = [
            [case.cycle(at=point.number), case.cycle(until=until)]
            for case, point in zip(cases, some, strict=True)
        ]
        survive(cases, chains, world.before(until) if until else world.whole, some)


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
    cases = [world.case(f"{point.number}-{second}") for point, second in pairs]
    chains = [
        [case.cycle(at=point.number), case.cycle(at=second), case.cycle()]
        for case, (point, second) in zip(cases, pairs, strict=True)
    ]
    survive(cases, chains, world.whole, list(pairs))
