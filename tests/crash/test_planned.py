"""A run that plans its rounds: killed anywhere in a reflection, or made by hand, it has the same bytes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from forks import Job
from world import Case, Point, World

KILLED = -signal.SIGKILL
VERBS = ("reflect", "generate", "critique", "reward", "select", "finetune", "evaluate", "gate")


class Planned:
    """The small run with `reflect.plan = auto`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.config = world.configured("planned", reflect__plan="auto", reflect__hint_tasks=4)
        log = world.folder / "planned.log"
        self.whole = world.case("planned")
        assert world.run(self.cycle(self.whole, log=str(log))) == [0], self.whole.said
        self.points = world.numbered(log)

    def cycle(self, case: Case, **fate: object) -> Job:
        return case.job("cycle", "--run", "r", "--config", str(self.config), **fate)

    def at_door(self, name: str, door: str) -> Case:
        case = self.world.case(f"planned {name}")
        assert self.world.run(self.cycle(case, until=door)) == [KILLED], case.said
        return case


@pytest.fixture(scope="module")
def planned(world: World) -> Planned:
    return Planned(world)


def test_the_plan_of_the_small_run_does_something(planned: Planned) -> None:
    """What the proof below covers: contexts are tried, and the second reflection judges the first plan."""
    for k in (1, 2):
        folder = planned.whole.run / f"round-00{k}"
        assert {"weaknesses.json", "causes.md", "plan.json", "reflect.json"} <= {
            path.name for path in folder.iterdir()
        }
    assert (planned.whole.run / "round-001/hints.jsonl").is_file()
    first = json.loads((planned.whole.run / "round-001/plan.json").read_text())
    assert first["hints"] and first["tokens"] > 0
    stages = {point.stage for point in planned.points if point.name == "atomic.before-rename"}
    assert {"reflect 1", "reflect 2"} <= stages
    assert planned.world.run(planned.whole.job("runs", "verify", "r")) == [0]


@pytest.mark.parametrize(
    ("k", "every"), [(1, 4), *(pytest.param(k, 1, marks=pytest.mark.long) for k in (1, 2))]
)
def test_killed_at_the_failpoints_of_a_reflection(planned: Planned, k: int, every: int) -> None:
    """To the door of the next stage: what follows from those bytes is another test's case."""
    world = planned.world
    name = f"{k} of {every}"
    begun = planned.at_door(f"before {name}", f"reflect {k}")
    done = planned.at_door(f"after {name}", f"generate {k}").tree()
    log = world.folder / f"reflect {name}.log"
    logged = world.case(f"planned log {name}", copy=begun)
    assert world.run(planned.cycle(logged, log=str(log), until=f"generate {k}")) == [KILLED]
    mine: list[Point] = [point for point in world.numbered(log) if point.stage == f"reflect {k}"]
    # At least the four files that a reflection leaves, each half-written, before its rename and renamed.
    assert len(mine) >= 4 * 3
    mine = mine[::every]
    cases = [world.case(f"reflect {name} {point.number}", copy=begun) for point in mine]
    chains = [
        [planned.cycle(case, at=point.number), planned.cycle(case, until=f"generate {k}")]
        for case, point in zip(cases, mine, strict=True)
    ]
    assert world.forks.run(*chains) == [[KILLED, KILLED]] * len(mine)
    for case, point in zip(cases, mine, strict=True):
        assert case.tree() == done, point
        case.remove()


@pytest.mark.long
def test_a_planned_run_made_by_hand_has_equal_bytes(planned: Planned) -> None:
    case = planned.world.case("planned by hand")
    made = case.job("runs", "new", "r", "--config", str(planned.config))
    rounds = [case.job(verb, "--run", "r") for _ in range(2) for verb in VERBS]
    jobs = [made, *rounds, case.job("gate", "--run", "r", "--final")]
    assert planned.world.run(*jobs) == [0] * len(jobs), case.said
    assert case.tree("manifest.json") == planned.whole.tree("manifest.json")
    assert Path(case.run / "round-002/plan.json").is_file()
