"""SIGINT and SIGTERM in each stage, a full disk, a second process: said clearly, and nothing is lost."""

from __future__ import annotations

import json
import signal

import pytest
from world import World

IN_STAGE = {
    "baseline": "part.data",
    "generate 1": "part.data",
    "critique 2": "part.half-data",
    "reward 1": "part.before-data",
    "finetune 1": "replace.built",
    "gate 2": "part.data",
}


@pytest.mark.parametrize("stage", IN_STAGE)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_batch_and_says_how_to_continue(world: World, stage: str, name: str) -> None:
    case = world.case(f"{name}-{stage}")
    at = world.at(stage, IN_STAGE[stage])
    assert world.run(case.cycle(at=at, signal=name)) == [128 + getattr(signal, name)], case.said
    assert f"stopped by {name} after the running batch; run the same command again to continue" in case.said
    assert "Traceback" not in case.said and "bug" not in case.said
    # The batch was committed: nothing half-written is left for a resume to mend.
    for part in case.run.rglob("*.part"):
        batches = part.with_name(part.name + ".idx").read_text().splitlines()
        end = json.loads(batches[-1])["end"] if batches else 0
        assert part.stat().st_size == end
    assert world.run(case.cycle()) == [0], case.said
    assert case.tree() == world.whole.tree()


def test_a_signal_in_training_loses_no_step(world: World) -> None:
    """Between two checkpoints of the configured distance the signal makes one of its own."""
    case = world.case("signal-between-checkpoints")
    path = world.configured("sparse", train__checkpoint_steps=100)
    command = ("cycle", "--run", "r", "--config", str(path))
    whole, log = world.case("sparse-whole"), world.folder / "sparse.log"
    assert world.run(whole.job(*command, log=str(log))) == [0]
    # The last failpoint before training: the signal is seen after its first step.
    at = max(p.number for p in world.numbered(log) if p.stage == "select 1")
    assert world.run(case.job(*command, at=at, signal="SIGTERM")) == [143], case.said
    assert (case.run / "round-001" / "train.ckpt" / "checkpoint.json").read_text() == '{"steps": 1}\n'
    assert world.run(case.job(*command)) == [0]
    assert case.tree() == whole.tree()


def test_a_signal_to_a_run_without_a_name_tells_the_name(world: World) -> None:
    """The same command again would begin another run."""
    case = world.case("nameless")
    at = world.at("generate 1", "part.data")
    assert world.run(case.job("cycle", "--config", str(world.config), at=at, signal="SIGINT")) == [130]
    assert "continue with: selfrefine cycle --run run-001" in case.said
    assert world.run(case.job("cycle", "--run", "run-001")) == [0], case.said


def test_a_second_signal_stops_at_once(world: World) -> None:
    case = world.case("twice")
    at = world.at("generate 1", "part.before-data")
    assert world.run(case.cycle(at=at, signal="SIGINT", again=at + 1)) == [-signal.SIGINT]
    assert case.said.count("again to stop at once") == 1
    part = case.run / "round-001" / "generate.jsonl.part"
    assert part.stat().st_size and not part.with_name(part.name + ".idx").read_bytes()  # in mid-batch
    assert world.run(case.cycle()) == [0], case.said
    assert case.tree() == world.whole.tree()


def test_a_second_process_is_refused_and_the_first_is_not_disturbed(world: World) -> None:
    """The first stands still in mid-batch while the second tries, by cycle and by hand."""
    for number, second in enumerate((("cycle",), ("generate",), ("gate", "--final"))):
        case = world.case(f"two-processes-{number}")
        flags = ("--config", str(world.config)) if second == ("cycle",) else ()
        other = case.job(*second, "--run", "r", *flags)
        at = world.at("generate 1", "part.half-data")
        assert world.run(case.cycle(at=at, signal="SIGSTOP", meanwhile=other)) == [5, 0], case.said
        assert "is locked by process" in case.said
        assert case.tree() == world.whole.tree()


@pytest.mark.parametrize("checkpoint_steps", [1, 100])
def test_a_full_disk_is_said_and_loses_nothing(world: World, checkpoint_steps: int) -> None:
    """Every limit lets the run get a little further; RLIMIT_FSIZE is what a file may grow to.

    A wide adapter, so that in the end a checkpoint (or, without one, the adapter) is what does not fit. The
    trap: safetensors reports a full disk as an error of its own, which would be taken for a bug.
    """
    path = world.configured(
        f"wide-{checkpoint_steps}",
        train__checkpoint_steps=checkpoint_steps,
        train__lora__targets=["all-linear"],
        train__lora__r=48,
    )
    command = ("cycle", "--run", "r", "--config", str(path))
    whole, case = (world.case(f"{name}-{checkpoint_steps}") for name in ("wide", "full-disk"))
    assert world.run(whole.job(*command)) == [0]
    rows = max(file.stat().st_size for file in (whole.run / "round-001").glob("*.jsonl"))
    tensors = max(file.stat().st_size for file in whole.run.rglob("*.safetensors"))
    assert rows < tensors // 2
    full = []
    for limit in (300, rows * 3 // 4, rows - 1, tensors // 2):  # the manifest is half as long as the rows
        assert world.run(case.job(*command, file_limit_bytes=limit)) == [5], case.said
        last = [line for line in case.said.splitlines() if line.startswith("error: ")][-1]
        what, hint = last.removeprefix("error: disk full: ").split(": ", 1)
        assert "free space and run the same command again" in hint
        left = [p.name for p in case.path.rglob(".*") if p.name.endswith((".building", ".new", ".tmp"))]
        assert not left, "what a command was building goes when it ends with an error"
        assert (case.path / "runs").exists() == (limit > 300)
        full.append(what.removeprefix("runs/r/").partition("/")[2] or what)
    assert full[0] == "runs" and full[-1] == ("train.ckpt" if checkpoint_steps == 1 else "adapter"), full
    assert all(name.endswith(".jsonl") for name in full[1:-1]), full
    assert "bug" not in case.said and "Traceback" not in case.said
    assert world.run(case.job(*command), case.job("runs", "verify", "r")) == [0, 0], case.said
    assert case.tree() == whole.tree()
