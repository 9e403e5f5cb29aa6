"""The step `evaluate`: a policy's answers to held-out tasks, scored, with an interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selfrefine.config import GenerateConfig
from selfrefine.engines.base import Engine
from selfrefine.records import Sample, Task, groups
from selfrefine.rewards.base import Scorer
from selfrefine.steps.generate import generate
from selfrefine.steps.reward import score


def evaluate(
    tasks: Sequence[Task],
    engine: Engine,
    settings: GenerateConfig,
    scorers: Sequence[Scorer],
    run_seed: int,
    *,
    stage: str,
    gate_on: str | None = None,
) -> list[Sample]:
    """Scored answers. The seeds are those of round 0 whatever the round: policies are compared on equal
    draws."""
    samples = generate(tasks, engine, settings, run_seed, round_index=0, stage=stage)
    return score(samples, scorers, gate_on)


def per_task(samples: Iterable[Sample]) -> dict[str, float | None]:
    """Task id to the mean reward of its samples; null where none of them could be scored."""
    means: dict[str, float | None] = {}
    for group in groups(list(samples)):
        values = [row.reward for row in group if row.reward is not None]
        means[group[0].task.id] = sum(values) / len(values) if values else None
    return means
