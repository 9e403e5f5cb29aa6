"""The step `generate`: tasks in, the policy's answers out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from selfrefine import seeds
from selfrefine.config import GenerateConfig
from selfrefine.engines.base import Completion, Engine, Request
from selfrefine.errors import EngineError
from selfrefine.records import Message, Sample, Task
from selfrefine.steps.units import cut


def task_units(tasks: Iterable[Task], settings: GenerateConfig, unit_tokens: int) -> Iterator[list[Task]]:
    """Tasks in commit units of at most `unit_tokens` new tokens."""
    each = settings.n * settings.max_new_tokens
    return cut(tasks, lambda _: each, unit_tokens, lambda task: task.id)


def generate(
    tasks: Sequence[Task],
    engine: Engine,
    settings: GenerateConfig,
    run_seed: int,
    *,
    round_index: int = 0,
    stage: str = "generate",
    on_rows: Callable[[list[Completion]], object] | None = None,
) -> list[Sample]:
    """settings.n samples per task, in task order, then index order.

    A row's randomness comes from (run seed, stage, round, task id, index) alone. A prompt longer than the
    context gives rows with finish_reason `error`. Raises: EngineError when answers are missing.
    """
    chats = [chat(task, settings.system) for task in tasks]
    requests = [
        Request(
            prompt_token_ids=engine.encode_chat(messages),
            seeds=tuple(
                seeds.row_seed(run_seed, stage, 0, round_index, task.id, k) for k in range(settings.n)
            ),
        )
        for task, messages in zip(tasks, chats, strict=True)
    ]
    answers: dict[tuple[int, int], Completion] = {}
    for batch in engine.generate(requests, settings):
        new = [answer for answer in batch if (answer.request, answer.index) not in answers]
        answers |= {(answer.request, answer.index): answer for answer in batch}
        if on_rows and new:
            on_rows(new)
    if len(answers) != len(tasks) * settings.n:
        raise EngineError(f"{engine.signature}: {len(answers)} answers to {len(tasks) * settings.n} requests")
    return [
        _sample(task, messages, request, answers[i, k], engine, round_index)
        for i, (task, messages, request) in enumerate(zip(tasks, chats, requests, strict=True))
        for k in range(settings.n)
    ]


def chat(task: Task, system: str | None) -> tuple[Message, ...]:
    """The task's prompt with the system message before it, unless it has one."""
    if system is None or (task.prompt and task.prompt[0].role == "system"):
        return task.prompt
    return (Message(role="system", content=system), *task.prompt)


def _sample(
    task: Task,
    messages: tuple[Message, ...],
    request: Request,
    answer: Completion,
    engine: Engine,
    round_index: int,
) -> Sample:
    return Sample(
        id=f"{task.id}.r{round_index}.s{answer.index}",
        task=task,
        messages=messages,
        prompt_token_ids=request.prompt_token_ids,
        round=round_index,
        index=answer.index,
        text=answer.text,
        finish_reason=answer.finish_reason,
        token_ids=answer.token_ids,
        logprobs=answer.logprobs,
        seed=request.seeds[answer.index],
        policy=engine.policy,
        engine=engine.signature,
        error=answer.error,
    )


def counts(samples: Iterable[Sample]) -> dict[str, int]:
    """samples, tasks, truncated, errors and sampled tokens: what a summary line says."""
    found = {"samples": 0, "tasks": 0, "truncated": 0, "errors": 0, "tokens": 0}
    last = None
    for sample in samples:
        found["samples"] += 1
        found["tasks"] += sample.task.id != last
        last = sample.task.id
        found["truncated"] += sample.finish_reason == "length"
        found["errors"] += sample.finish_reason == "error"
        found["tokens"] += len(sample.token_ids)
    return found
