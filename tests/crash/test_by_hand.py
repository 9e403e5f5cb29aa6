"""A run made verb by verb is the run that `cycle` makes; two runs with one seed are one run."""

from __future__ import annotations

import pytest
from forks import Job
from world import Case, World

VERBS = ("generate", "critique", "reward", "select", "finetune", "evaluate", "gate")


def by_hand(case: Case, rounds: int) -> list[Job]:
    made = case.job("runs", "new", "r", "--config", str(case.world.config))
    return [made, *(case.job(verb, "--run", "r") for _ in range(rounds) for verb in VERBS)]


def test_a_run_made_by_hand_has_equal_bytes(world: World) -> None:
    """Samples, rewards, adapters, decisions, the final measurement; only the manifest's argv differs."""
    case = world.case("by-hand")
    jobs = [*by_hand(case, 2), case.job("gate", "--run", "r", "--final"), case.job("runs", "verify", "r")]
    assert world.run(*jobs) == [0] * len(jobs), case.said
    assert case.tree("manifest.json") == world.whole.tree("manifest.json")


def test_cycle_goes_on_where_hands_stopped(world: World) -> None:
    case = world.case("half-by-hand")
    jobs = [*by_hand(case, 1), case.job("generate", "--run", "r"), case.cycle()]
    assert world.run(*jobs) == [0] * len(jobs), case.said
    assert case.tree("manifest.json") == world.whole.tree("manifest.json")


@pytest.mark.parametrize("verb", ["generate", "critique", "reward", "finetune", "gate"])
def test_a_verb_killed_by_hand_is_given_again(world: World, verb: str) -> None:
    """The second batch, or what follows the first checkpoint, is lost; the verb given again has it."""
    case = world.case(f"by-hand-{verb}")
    before = by_hand(case, 1)[: 1 + VERBS.index(verb)]
    after = [case.job(each, "--run", "r") for each in VERBS[VERBS.index(verb) + 1 :]]
    # The first verb also measures round 0, and for the last, `evaluate` has done the measuring.
    at = {"generate": 40, "gate": 3}.get(verb, 12)
    again = case.job(verb, "--run", "r")
    jobs = [*before, case.job(verb, "--run", "r", at=at), again, *after, case.cycle()]
    statuses = world.run(*jobs)
    assert statuses.pop(len(before)) == -9
    assert statuses == [0] * len(statuses), case.said
    assert case.tree("manifest.json") == world.whole.tree("manifest.json")


def test_two_runs_with_one_seed_are_equal_and_another_seed_is_not(world: World) -> None:
    twin, other = world.case("twin"), world.case("other-seed")
    assert world.forks.run([twin.cycle()], [other.cycle("--seed", "6")]) == [[0], [0]]
    assert twin.tree() == world.whole.tree()
    assert other.tree()["r/round-001/generate.jsonl"] != world.whole.tree()["r/round-001/generate.jsonl"]
