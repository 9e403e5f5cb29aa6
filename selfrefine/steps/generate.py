"""The step `generate`: tasks in, the policy's answers out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from selfrefine import seeds
from selfrefine.config import GenerateConfig
from selfrefine.engines.base import Completion, Engine, Request
from selfrefine.errors import EngineError
from selfrefine.records import Message, Sample, Task, unless_prompt
from selfrefine.steps import run_on
from selfrefine.steps.units import cut
from selfrefine.sums import Sums


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
            messages=messages,
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
        messages=unless_prompt(messages, task),
        prompt_token_ids=request.prompt_token_ids,
        round=round_index,
        index=answer.index,
        text=answer.text,
        finish_reason=answer.finish_reason,
        token_ids=answer.token_ids,
        logprobs=answer.logprobs,
        counted_tokens=answer.count,
        seed=request.seeds[answer.index],
        policy=engine.policy,
        engine=engine.signature,
        error=answer.error,
    )


class Drawn(Sums, frozen=True, kw_only=True):
    """What sampling came to, as sums over commit units; a task's samples are in one unit."""

    samples: int = 0
    tasks: int = 0
    truncated: int = 0
    errors: int = 0
    tokens: int = 0
    nats: float = 0.0
    """-logprob over the `rated` tokens of samples that have logprobs."""
    rated: int = 0
    ran_on: dict[str, int] = {}
    """By stop text, the cut-off answers that went on after it (`run_on.passed`)."""
    dropped: int = 0
    """Samples beside which another was chosen (`steps.best_of`)."""
    scored_tokens: int = 0
    """Read to choose."""

    @property
    def entropy(self) -> float | None:
        """Mean -logprob per sampled token, in nats; null without logprobs."""
        return self.nats / self.rated if self.rated else None


def drawn(samples: Iterable[Sample]) -> Drawn:
    """Of rows in task order."""
    rows = list(samples)
    rated = [row.logprobs for row in rows if row.logprobs and row.finish_reason != "error"]
    return Drawn(
        samples=len(rows),
        tasks=sum(1 for _ in itertools.groupby(rows, key=lambda row: row.task.id)),
        truncated=sum(row.finish_reason == "length" for row in rows),
        errors=sum(row.finish_reason == "error" for row in rows),
        tokens=sum(row.sampled_tokens for row in rows),
        nats=-math.fsum(logprob for logprobs in rated for logprob in logprobs),
        rated=sum(map(len, rated)),
        ran_on=run_on.passed(rows),
    )
