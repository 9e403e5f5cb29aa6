"""The guard of the guard: whole runs with a planted bug must not pass for whole."""

from __future__ import annotations

import pytest
from world import World


@pytest.mark.parametrize(
    ("plant", "stage", "name"),
    [
        ("no_tail_repair", "generate 1", "part.half-data"),
        ("no_tail_repair", "critique 2", "part.data-synced"),
        ("resume_at_a_row", "generate 2", "part.half-data"),
        ("resume_at_a_row", "gate 1", "part.data-synced"),
        ("non_atomic_commit", "gate 1", "half"),
        ("non_atomic_commit", "baseline", "half"),
    ],
)
def test_a_planted_bug_is_found(world: World, plant: str, stage: str, name: str) -> None:
    case = world.case(f"{plant}-{stage}")
    log = world.folder / f"{plant}-{stage}.log"
    # The bug moves the failpoints, so they are counted in a run that has it.
    assert world.run(world.case(f"{plant}-{stage}-whole").cycle(plant=plant, log=str(log))) == [0]
    points = world.numbered(log)
    # A stage's own summary may be torn and is written again; round.json, the last of its kind, may not.
    at = [point.number for point in points if point[1:] == (name, stage)][-1 if name == "half" else 0]
    killed, resumed = world.run(case.cycle(at=at, plant=plant), case.cycle(plant=plant))
    assert killed == -9
    assert resumed != 0 or case.tree() != world.whole.tree(), f"{plant} went unseen"


def test_the_same_points_without_a_bug_are_survived(world: World) -> None:
    """What the test above finds is the bug, and not the plant."""
    for stage, name in (("generate 1", "part.half-data"), ("gate 1", "part.data-synced")):
        case = world.case(f"no-plant-{stage}")
        assert world.run(case.cycle(at=world.at(stage, name)), case.cycle()) == [-9, 0]
        assert case.tree() == world.whole.tree()
