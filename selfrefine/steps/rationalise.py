"""Rationalisation: where no sample was right, sample again with the reference in view.

A right answer found that way is stored under the task's own prompt, as if the hint had not been there: its
logprobs are of another prompt and are dropped. Where a task's answer is bare (a number, no working), the hint
is the answer, and learning from such a row is learning the reference.

Source: Zelikman et al. 2022, "STaR: Bootstrapping Reasoning With Reasoning", section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from selfrefine.config import GenerateConfig
from selfrefine.engines.base import Completion, Engine
from selfrefine.prompts import Template
from selfrefine.records import Message, Sample, Task, groups
from selfrefine.steps.generate import generate
from selfrefine.steps.in_context import as_asked_plainly

RATIONALISED = "rationalised"
"""Column of a row that was sampled with a hint."""


def is_rationalised(row: Sample) -> bool:
    return isinstance(row.extra, dict) and RATIONALISED in row.extra


def unsolved(samples: Sequence[Sample], mark: float) -> list[Task]:
    """Tasks with a reference that were answered and scored, by no answer with `mark` or more."""
    tasks = []
    for group in groups(samples):
        rewards = [row.reward for row in group if row.reward is not None]
        task = group[0].task
        if rewards and max(rewards) < mark and _reference(task):
            tasks.append(task)
    return tasks


def rationalise(
    tasks: Sequence[Task],
    engine: Engine,
    template: Template,
    settings: GenerateConfig,
    run_seed: int,
    *,
    round_index: int,
    score: Callable[[list[Sample]], list[Sample]],
    on_rows: Callable[[list[Completion]], object] | None = None,
) -> list[Sample]:
    """settings.n scored answers a task, sampled with the hint and stored without it, right or not.

    Raises: EngineError, ConfigError (the template), what `score` raises.
    """
    hinted = [replace(task, prompt=_with_hint(task, template)) for task in tasks]
    sampled = generate(
        hinted, engine, settings, run_seed, round_index=round_index, stage="rationalise", on_rows=on_rows
    )
    plain = as_asked_plainly(sampled, tasks, engine, settings.system, {RATIONALISED: True})
    return score([replace(row, id=f"{row.task.id}.r{round_index}.h{row.index}") for row in plain])


def _with_hint(task: Task, template: Template) -> tuple[Message, ...]:
    """The task's prompt, its last user message rendered with the reference."""
    users = [i for i, message in enumerate(task.prompt) if message.role == "user"]
    at = users[-1] if users else len(task.prompt) - 1
    text = template.render(task=task.prompt[at].content, reference=_reference(task))
    return (*task.prompt[:at], Message(role="user", content=text), *task.prompt[at + 1 :])


def _reference(task: Task) -> str:
    return next((text for text in task.references if text.strip()), "")
