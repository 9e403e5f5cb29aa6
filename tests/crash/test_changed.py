"""Coming back to a run with something changed: extended, drifted, tampered with, ended early."""

from __future__ import annotations

import json

import pytest
from safetensors.numpy import load_file
from world import World

NOTE = "r/final/summary.json"


@pytest.fixture(scope="module")
def three(world: World) -> dict[str, object]:
    """A run that was asked for three rounds in the first place."""
    case = world.case("three")
    assert world.run(case.cycle("--rounds", "3")) == [0], case.said
    return case.tree("manifest.json")


def test_a_finished_run_is_extended_and_keeps_its_earlier_end(world: World, three: dict[str, object]) -> None:
    case = world.case("extended", copy=world.whole)
    assert world.run(case.cycle("--rounds", "3"), case.job("runs", "verify", "r")) == [0, 0], case.said
    found, before = case.tree("manifest.json"), world.whole.tree()
    kept = {name: found.pop(name) for name in list(found) if name.startswith("r/final-after-002")}
    assert kept["r/final-after-002/test.jsonl"] == before["r/final/test.jsonl"]
    assert kept["r/final-after-002/summary.json"] == before[NOTE]
    # One more read of the test split is all that tells it from a run of three rounds.
    told, expected = (json.loads(one.pop(NOTE)) for one in (found, dict(three)))  # type: ignore[arg-type]
    assert told == expected | {"test_reads": 3}
    assert found == {name: value for name, value in three.items() if name != NOTE}


def test_extending_survives_every_crash_around_its_seams(world: World) -> None:
    """Where the old end moves away, and where the new one is measured."""
    extended, log = world.case("extended-whole", copy=world.whole), world.folder / "extended.log"
    assert world.run(extended.cycle("--rounds", "3", log=str(log))) == [0]
    points = [p for p in world.numbered(log) if p.stage == "final" or p.name.startswith(("commit.", "link."))]
    assert "final.moved" in {point.name for point in points}
    cases = [world.case(f"extended-{point.number}", copy=world.whole) for point in points]
    flags = ("--rounds", "3")
    chains = [
        [case.cycle(*flags, at=point.number), case.cycle(*flags)]
        for case, point in zip(cases, points, strict=True)
    ]
    assert world.forks.run(*chains) == [[-9, 0]] * len(points)
    for case, point in zip(cases, points, strict=True):
        assert case.tree() == extended.tree(), point


@pytest.mark.parametrize(
    "name", ["part.data-synced", "part.committed", "part.renamed", "atomic.before-rename"]
)
def test_an_unfinished_end_is_not_mixed_into_the_next(
    world: World, three: dict[str, object], name: str
) -> None:
    """The trap: killed while the test split was measured, then extended. What had been measured is of another
    policy than the one that is accepted now."""
    case = world.case(f"unfinished-end-{name}")
    killed = world.run(case.cycle(at=world.at("final", name)), case.cycle("--rounds", "3"))
    assert killed == [-9, 0], case.said
    assert case.tree("manifest.json") == three
    assert world.run(case.job("runs", "verify", "r")) == [0], case.said


def test_a_run_that_rolled_back_survives_too(world: World) -> None:
    """A learning rate of nothing: no candidate is better, so both rounds are rolled back to the base."""
    path = world.configured("rolled-back", gate__mode="significant", train__lr=1e-12)
    command = ("cycle", "--run", "r", "--config", str(path))
    whole, log = world.case("rolled-back"), world.folder / "rolled-back.log"
    assert world.run(whole.job(*command, log=str(log)), whole.job("runs", "verify", "r")) == [0, 0]
    assert json.loads((whole.run / "final" / "summary.json").read_bytes())["accepted_round"] == 0
    assert not (whole.run / "adapter").is_symlink()
    points = [
        p
        for p in world.numbered(log)
        if p.name.startswith(("commit", "atomic", "directory")) and "gate" in p.stage
    ]
    cases = [whole.world.case(f"rolled-back-{point.number}") for point in points]
    chains = [
        [case.job(*command, at=point.number), case.job(*command)]
        for case, point in zip(cases, points, strict=True)
    ]
    assert world.forks.run(*chains) == [[-9, 0]] * len(points)
    for case in cases:
        assert case.tree() == whole.tree()


def test_training_goes_on_from_an_undecided_candidate(world: World) -> None:
    """Four gate tasks never show a gain (p is 1/16 at best), so what is better stays undecided: the next
    round samples from it and continues its adapter, the run ends with the start; no crash changes that."""
    path = world.configured("undecided", gate__mode="significant", seed=1)
    command = ("cycle", "--run", "r", "--config", str(path))
    whole, log = world.case("undecided"), world.folder / "undecided.log"
    assert world.run(whole.job(*command, log=str(log)), whole.job("runs", "verify", "r")) == [0, 0], (
        whole.said
    )
    rounds = [whole.run / f"round-00{k}" for k in (0, 1, 2)]
    start, first, second = (json.loads((folder / "round.json").read_text()) for folder in rounds)
    assert (first["gate"]["outcome"], first["accepted_round"], first["undecided_round"]) == (
        "undecided",
        0,
        1,
    )
    measured, drawn = (
        {json.loads(line)["policy"] for line in file.read_text().splitlines()}
        for file in (rounds[1] / "gate.jsonl", rounds[2] / "generate.jsonl")
    )
    assert first["policy_before"] == start["policy_after"]
    assert measured == drawn == {first["policy_after"]} == {second["policy_before"]}
    # Adam moves a weight by about the learning rate a step; a fresh adapter's A would be drawn anew.
    ours, theirs = (load_file(folder / "adapter/adapter_model.safetensors") for folder in rounds[1:])
    assert all(abs(ours[name] - theirs[name]).max() < 4 * 0.02 for name in ours if "lora_A" in name)
    assert max(abs(ours[name]).max() for name in ours if "lora_A" in name) > 0.1
    final = json.loads((whole.run / "final" / "summary.json").read_text())
    assert final["accepted_round"] == 0 and final["policy"] == start["policy_after"]
    assert not (whole.run / "adapter").is_symlink()
    points = [
        p
        for p in world.numbered(log)
        if p.stage in ("gate 1", "generate 2", "finetune 2", "gate 2")
        and p.name.startswith(("commit", "atomic.before", "directory", "part.committed", "replace.built"))
    ]
    cases = [world.case(f"undecided-{point.number}") for point in points]
    chains = [
        [case.job(*command, at=point.number), case.job(*command)]
        for case, point in zip(cases, points, strict=True)
    ]
    assert len(points) > 10 and world.forks.run(*chains) == [[-9, 0]] * len(points)
    for case in cases:
        assert case.tree() == whole.tree()


def test_drift_is_refused_by_name_and_allowed_on_the_record(world: World) -> None:
    case = world.case("drift")
    at = world.at("generate 1", "part.committed")
    changed = ("--set", "train.lr=0.01")
    assert world.run(case.cycle(at=at), case.cycle(*changed)) == [-9, 5], case.said
    assert "train.lr: 0.02 in the run, 0.01 now" in case.said and "--allow-drift" in case.said
    assert world.run(case.cycle(*changed, "--allow-drift"), case.job("runs", "verify", "r")) == [0, 0]
    assert [event["differs"] for event in case.events("drift")] == [["train.lr: 0.02 in the run, 0.01 now"]]
    found, expected = case.tree(), world.whole.tree()
    assert found["r/round-001/generate.jsonl"] == expected["r/round-001/generate.jsonl"]
    rates = [json.loads(line)["lr"] for line in (case.run / "round-001/train.jsonl").read_text().splitlines()]
    assert max(rates) == 0.01
    assert found["r/manifest.json"] == expected["r/manifest.json"]  # what was asked never changes


def test_a_finished_run_given_again_changes_nothing(world: World) -> None:
    case = world.case("again", copy=world.whole)
    assert world.run(case.cycle(), case.job("cycle", "--run", "r")) == [0, 0], case.said
    assert case.tree() == world.whole.tree()


@pytest.mark.parametrize(("stage", "verb"), [("critique 1", "critique"), ("reward 1", "reward")])
def test_samples_of_another_policy_are_refused(world: World, stage: str, verb: str) -> None:
    """The trap: a loop that ignores its model argument samples the old policy for ever."""
    case = world.case(f"other-policy-{verb}")
    assert world.run(case.cycle(at=world.at(stage, "part.created"))) == [-9]
    path = case.run / "round-001" / ("generate.jsonl" if verb == "critique" else "critique.jsonl")
    row = json.loads(path.read_bytes().splitlines()[0])
    path.write_bytes(path.read_bytes().replace(row["policy"].encode(), b"f" * 16))
    assert world.run(case.cycle(), case.job(verb, "--run", "r")) == [5, 5], case.said
    assert f"was sampled by policy {'f' * 16}, but this round's policy is {row['policy']}" in case.said


def test_a_run_without_held_out_tasks_goes_through(world: World) -> None:
    """With the gate off and no test split there is nothing to measure, and that is no error."""
    path = world.configured("unmeasured", tasks__gate=0, tasks__test=0)
    case = world.case("unmeasured")
    assert world.run(case.job("cycle", "--run", "r", "--config", str(path))) == [0], case.said
    assert not list(case.run.glob("round-*/gate.jsonl")) and not (case.run / "final").exists()
