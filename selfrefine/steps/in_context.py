"""Answers sampled in another context than they are learnt in: with a hint or with examples before the task.

They are stored under the task's own prompt, as if the rest had not been there; their logprobs are of another
prompt and are dropped. Learning from them puts what the context brought about into the weights.

Source: Snell et al. 2022, "Learning by distilling context", arXiv 2209.15189.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from selfrefine.config import GenerateConfig
from selfrefine.engines.base import Completion, Engine
from selfrefine.records import Message, Sample, Task, unless_prompt
from selfrefine.steps.generate import chat, generate

SAMPLED_WITH = "sampled_with"
"""Column of a row that was sampled in a context: `hint` or `few-shot`."""


class Context(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stands before a task while it is answered. `examples`: (question, answer), in order; a task that
    is one of them is asked without it, because its own right answer in view would be copied."""

    kind: Literal["hint", "few-shot"]
    system: str = ""
    examples: tuple[tuple[str, str], ...] = ()

    def asked(self, task: Task, system: str | None) -> Task:
        """The task as it is asked: the hint after its system message, then the examples as earlier turns."""
        messages = chat(task, system)
        head = messages[:1] if messages and messages[0].role == "system" else ()
        rest = messages[len(head) :]
        if self.system:
            before = f"{head[0].content}\n" if head else ""
            head = (Message(role="system", content=before + self.system),)
        asked = {message.content for message in rest if message.role == "user"}
        turns = [
            Message(role=role, content=text)
            for pair in self.examples
            if pair[0] not in asked
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        return replace(task, prompt=(*head, *turns, *rest))


def sampled_in(
    context: Context,
    tasks: Sequence[Task],
    engine: Engine,
    settings: GenerateConfig,
    run_seed: int,
    *,
    round_index: int = 0,
    stage: str = "generate",
    on_rows: Callable[[list[Completion]], object] | None = None,
) -> list[Sample]:
    """As `steps.generate.generate`, in a context, stored without it. The row's column `sampled_with` says so.

    Raises: EngineError; ConfigError where the model's chat template refuses such messages.
    """
    rows = generate(
        [context.asked(task, settings.system) for task in tasks],
        engine,
        # A task without a system message has none here either: what stands first may be an example.
        replace(settings, system=None),
        run_seed,
        round_index=round_index,
        stage=stage,
        on_rows=on_rows,
    )
    return as_asked_plainly(rows, tasks, engine, settings.system, {SAMPLED_WITH: context.kind})


def as_asked_plainly(
    rows: Sequence[Sample], tasks: Sequence[Task], engine: Engine, system: str | None, column: dict[str, Any]
) -> list[Sample]:
    """Rows under the tasks' own prompts, without logprobs, with a column that says how they were sampled."""
    by_id = {task.id: task for task in tasks}
    plain = {task.id: chat(task, system) for task in tasks}
    prompts = {key: engine.encode_chat(messages) for key, messages in plain.items()}
    extra = {key: Raw(msgspec.json.encode(value)) for key, value in column.items()}
    return [
        replace(
            row,
            task=by_id[row.task.id],
            messages=unless_prompt(plain[row.task.id], by_id[row.task.id]),
            prompt_token_ids=prompts[row.task.id],
            logprobs=None,
            extra=extra,
        )
        for row in rows
    ]
