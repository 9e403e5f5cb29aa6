"""Rationalisation: where no sample was right, sample again with the reference in view.

A right answer found that way is stored under the task's own prompt, as if the hint had not been there: its
logprobs are of another prompt and are dropped. Where a task's answer is bare (a number, no working), the hint
is the answer, and learning from such a row is learning the reference.

Source: Zelikman et al. 2022, "STaR: Bootstrapping Reasoning With Reasoning", section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Raw
from msgspec.structs import replace

from selfrefine.config import GenerateConfig
from selfrefine.engines.base import Completion, Engine
from selfrefine.prompts import Template
from selfrefine.records import Message, Sample, Task, groups, unless_prompt
from selfrefine.steps.generate import chat, generate

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
    by_id = {task.id: task for task in tasks}
    plain = {task.id: chat(task, settings.system) for task in tasks}
    prompts = {key: engine.encode_chat(messages) for key, messages in plain.items()}
    return score(
        [
            replace(
                row,
                id=f"{row.task.id}.r{round_index}.h{row.index}",
                task=by_id[row.task.id],
                messages=unless_prompt(plain[row.task.id], by_id[row.task.id]),
                prompt_token_ids=prompts[row.task.id],
                logprobs=None,
                extra={RATIONALISED: Raw(b"true")},
            )
            for row in sampled
        ]
    )


def _with_hint(task: Task, template: Template) -> tuple[Message, ...]:
    """The task's prompt, its last user message rendered with the reference."""
    users = [i for i, message in enumerate(task.prompt) if message.role == "user"]
    at = users[-1] if users else len(task.prompt) - 1
    text = template.render(task=task.prompt[at].content, reference=_reference(task))
    return (*task.prompt[:at], Message(role="user", content=text), *task.prompt[at + 1 :])


def _reference(task: Task) -> str:
    return next((text for text in task.references if text.strip()), "")
