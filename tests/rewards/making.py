"""A reward as `-r NAME` makes it, and what it says of a few answers."""

from __future__ import annotations

from typing import Any

import msgspec

from selfrefine.records import Message, Reward, Sample, Task
from selfrefine.rewards.base import Limits, RewardOptions, RewardSpec, Scorer
from selfrefine.steps.reward import build, parse_spec, score

LIMITS = Limits(memory_gib=4.0, cpu_s=60.0)


def made(name: str, engine: Any = None, *, seed: int = 0, reveal: bool = False, **settings: Any) -> Scorer:
    options = RewardOptions(seed=seed, settings={name: settings}, reveal_references=reveal)
    (scorer,) = build([RewardSpec(name=name)], msgspec.structs.replace(options, engine=engine))
    return scorer


def samples(n: int = 2) -> list[Sample]:
    asked = Task(id="t", prompt=(Message(role="user", content="?"),), meta={"kept": [1]})
    return [Sample(id=f"t.r0.s{i}", task=asked, index=i, text=str(i)) for i in range(n)]


def scored(spec: str, rows: list[Sample] | None = None, **options: object) -> list[Reward]:
    chosen = build([parse_spec(spec)], RewardOptions(**options))  # type: ignore[arg-type]
    return [row.rewards[0] for row in score(samples() if rows is None else rows, chosen)]
