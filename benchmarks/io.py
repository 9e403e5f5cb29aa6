"""What is not the model: rows written and read, a round without its model, commands without one.

    python -m benchmarks.io            prints a table; about a minute, a gigabyte of disk, no model

Rows are as `generate` writes them for a two-term sum: 45 prompt tokens, 48 new ones, 2.5 KB. Figures are the
best of their repeats, by the clock and by processor time: the second leaves out waiting, for the disk (fsync)
and for whatever else the machine has to do.
"""

from __future__ import annotations

import collections
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfrefine import records
from selfrefine.cli.stream import read_samples
from selfrefine.config import Config, Sampling, SelectConfig
from selfrefine.engines.base import Completion, Request
from selfrefine.engines.scripted import Scripted
from selfrefine.judging import RewardConfig
from selfrefine.records import Message, Reward, Sample, Task
from selfrefine.runfolder.part import PartFile
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import RoundSummary, RunManifest
from selfrefine.stages import cycle as loop
from selfrefine.stages.gate import baseline, gate
from selfrefine.stages.progress import Silent
from selfrefine.stages.session import RunSession
from selfrefine.stats import Interval
from selfrefine.thresholds import GateConfig

ROWS, UNIT, BIG, RUNS = 8_192, 1_024, 100_000, 200


def row(i: int, chance: random.Random) -> Sample:
    prompt = (Message(role="user", content=f"What is {i} + {i % 90}? Answer with just the number."),)
    meta = {
        "source_dataset": "chain_sum",
        "source_index": i,
        "num_terms": 2,
        "difficulty": {"num_digits": [1, 2]},
    }
    task = Task(id=f"{i:016x}", prompt=prompt, references=(str(i),), tags={"difficulty": "1"}, meta=meta)
    return Sample(
        id=f"{task.id}.r1.s0",
        task=task,
        messages=prompt,
        prompt_token_ids=tuple(chance.randrange(49_152) for _ in range(45)),
        round=1,
        text="The sum of the two numbers is what was asked for, " * 3,
        token_ids=tuple(chance.randrange(49_152) for _ in range(48)),
        logprobs=tuple(-3 * chance.random() for _ in range(48)),
        seed=chance.randrange(2**53),
        policy="0123456789abcdef",
        engine="local|cpu|float32|merged|torch 2.13.0|transformers 5.23.0",
        rewards=(Reward(name="gym", value=1.0, detail="exact", signature="gym:chain_sum"),),
        reward=1.0,
    )


class Cost(NamedTuple):
    """Seconds by the clock and of the processor."""

    clock: float
    processor: float


def best(work: Callable[[], object], repeats: int = 5) -> Cost:
    costs = []
    for _ in range(repeats):
        began, busy = time.perf_counter(), _busy()
        work()
        costs.append(Cost(time.perf_counter() - began, _busy() - busy))
    return Cost(min(c.clock for c in costs), min(c.processor for c in costs))


def _busy() -> float:
    """Processor seconds of this process and of those it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def through(rows: Iterator[object]) -> None:
    """Read to the end, keep nothing."""
    collections.deque(rows, maxlen=0)


def rows_table(folder: Path) -> Iterator[tuple[str, float, Cost]]:
    """Each way a row goes: megabytes, and what they cost."""
    chance = random.Random(0)
    rows = [row(i, chance) for i in range(ROWS)]
    encoded = [records.encode(one) for one in rows]
    mega = sum(map(len, encoded)) / 1e6
    place = folder / "round-001"
    place.mkdir()
    final = place / "generate.jsonl"

    def write(unit: int) -> None:
        final.unlink(missing_ok=True)
        with PartFile.open(final) as part:
            for at in range(0, ROWS, unit):
                part.append([records.encode(one) for one in rows[at : at + unit]])
            part.finish()

    def bare() -> None:
        with (folder / "bare").open("wb", buffering=0) as file:
            for at in range(0, ROWS, UNIT):
                file.write(b"\n".join(encoded[at : at + UNIT]))
                os.fsync(file.fileno())

    yield "encode", mega, best(lambda: [records.encode(one) for one in rows])
    yield (
        "decode, a row at a time",
        mega,
        best(lambda: through(records.decode_sample(x, "f:1") for x in encoded)),
    )
    yield f"write a stage, {UNIT} rows a commit", mega, best(lambda: write(UNIT))
    yield "  the same bytes, bare write and fsync", mega, best(bare)
    yield "write a stage, 128 rows a commit", mega, best(lambda: write(128), 3)
    yield "read a filter's input (ids checked)", mega, best(lambda: through(read_samples(str(final))))
    yield "read a stage, as a list", mega, best(lambda: list(RoundDir(place).samples("generate")))


def commands_table(folder: Path) -> Iterator[tuple[str, Cost]]:
    """Whole processes."""
    chance = random.Random(0)
    for i in range(RUNS):
        make_run(folder / "runs" / f"r{i:03d}")
    big = make_run(folder / "runs" / "big")
    block = b"".join(records.encode(row(i, chance)) + b"\n" for i in range(1_000))
    for name in ("generate", "reward"):
        with big.round(1).file(name).open("wb") as file:
            for _ in range(BIG // 1_000):
                file.write(block)
    for words in (["--help"], ["runs", "ls"], ["runs", "show", "big"]):

        def run(words: list[str] = words) -> None:
            command = [sys.executable, "-m", "selfrefine", *words]
            environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
            subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)

        yield " ".join(["selfrefine", *words]), best(run)


def make_run(path: Path, splits: Mapping[str, Sequence[Task]] | None = None, rounds: int = 3) -> Run:
    """A run with committed rounds and without a row."""
    facts: dict[str, Any] = {
        name: {} for name in ("config", "origins", "seeds", "git", "packages", "model", "prompts", "tasks")
    }
    manifest = RunManifest(
        name=path.name,
        argv=("selfrefine", "cycle"),
        chat_template_sha256="",
        device="cpu",
        dtype="float32",
        threads=2,
        token_budget=24_576,
        **facts,
    )
    run = Run.create(path, manifest, splits or {}, {})
    measure = Interval(mean=0.5, lo=0.4, hi=0.6, n=200)
    for k in range(rounds):
        run.round(k).commit(
            RoundSummary(
                index=k, policy_before="a", policy_after="b", measures={"gate": measure}, accepted_round=0
            )
        )
    return run


class Timed(Scripted):
    """Knows how long it was busy itself."""

    clock = processor = 0.0

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        began, busy = time.perf_counter(), _busy()
        made = list(super().generate(requests, sampling))
        self.clock += time.perf_counter() - began
        self.processor += _busy() - busy
        yield from made


def round_cost(folder: Path) -> Cost:
    """A round of 128 prompts x 8 samples and 200 gate tasks, less the engine: no training, but its adapter of
    20 MB is there to be hashed. Chat templates and tokenisers are the engine's and not in it."""
    config = Config(
        reward=RewardConfig(use=("numeric",)),
        gate=GateConfig(mode="off"),
        select=SelectConfig(strategy="threshold", min_reward=1.0, max_per_prompt=2),
    )
    tasks = [
        Task(
            id=f"t{i}",
            prompt=(Message(role="user", content=f"What is {i} + {i % 90}? Answer with just the number."),),
            references=(str(i + i % 90),),
        )
        for i in range(512)
    ]
    splits = {"train": tasks[:128], "gate": tasks[128:328], "test": tasks[328:]}
    run = make_run(folder / "round", splits, rounds=0)
    engine = Timed()
    with run.lock():
        session = RunSession(config, Silent(), lambda: engine, run=run)
        baseline(session)
        engine.clock = engine.processor = 0.0
        began, busy = time.perf_counter(), _busy()
        loop.generate(session, 1)
        loop.reward(session, 1)
        loop.select(session, 1)
        place = run.round(1)
        place.put_directory(
            "adapter", lambda f: (f / "adapter_model.safetensors").write_bytes(bytes(20_000_000))
        )
        gate(session, 1)
        loop.why_stop(session, 0.0)
        spent = Cost(time.perf_counter() - began - engine.clock, _busy() - busy - engine.processor)
    shutil.rmtree(run.path)
    return spent


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{'rows':<42}{'MB/s':>10}{'MB per processor second':>26}")
        for what, mega, cost in rows_table(folder):
            print(f"{what:<42}{mega / cost.clock:10.0f}{mega / cost.processor:26.0f}", flush=True)
        print(f"\n{'seconds':<42}{'clock':>10}{'processor':>26}")
        costs = [round_cost(folder) for _ in range(5)]
        least = Cost(min(c.clock for c in costs), min(c.processor for c in costs))
        for what, cost in (("a round of 1,024 rows, less its engine", least), *commands_table(folder)):
            print(f"{what:<42}{cost.clock:10.2f}{cost.processor:26.2f}", flush=True)


if __name__ == "__main__":
    main()
