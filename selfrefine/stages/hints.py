"""The stage `hints`: contexts tried on a few training tasks before a round is sampled with one of them.

Before the first round it is also the first look at samples: the gate knows greedy answers only. Each task
is answered once without and once with each context, all from the same seeds: a context is used only where
the paired test says that it is better. These answers are learnt from by no one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from selfrefine.config import GenerateConfig
from selfrefine.records import Sample, Task
from selfrefine.reflection.facts import Trial
from selfrefine.seeds import derive
from selfrefine.stages import alarms
from selfrefine.stages.generate import Generate
from selfrefine.stages.progress import Bar, show_completions, show_rewards
from selfrefine.stages.session import RunSession
from selfrefine.stats import compare
from selfrefine.steps.generate import Drawn, drawn, generate, task_units
from selfrefine.steps.in_context import Context, sampled_in

ALPHA = 0.05
"""One-sided, shared by the contexts that are tried together."""


class Hints(Generate):
    """Training tasks in; an answer without (index 0) and one with each context (1, 2, …) out, scored."""

    name = title = "hints"

    def __init__(
        self, session: RunSession, round_index: int, contexts: Sequence[Context], settings: GenerateConfig
    ) -> None:
        """`settings`: those that the round is planned to sample with."""
        super().__init__(session, round_index)
        self.settings = replace(settings, n=1)
        self.contexts = contexts

    def inputs(self, session: RunSession) -> Sequence[Task]:
        config, train = session.config, session.run.tasks("train")
        ordered = sorted(train, key=lambda task: (derive(config.seed, "hints", self.round, task.id), task.id))
        session.use_policy(session.run.current_adapter)
        return ordered[: config.reflect.hint_tasks]

    def units(self, rows: Iterable[Task]) -> Iterator[list[Task]]:
        arms = replace(self.settings, n=1 + len(self.contexts))
        return task_units(rows, arms, self.session.engine.unit_tokens)

    def make(self, unit: Sequence[Task], bar: Bar) -> tuple[list[Sample], Drawn]:
        session, k = self.session, self.round
        engine, seed = session.engine, session.config.seed
        arms = [
            generate(
                unit,
                engine,
                self.settings,
                seed,
                round_index=k,
                stage="hints",
                on_rows=lambda batch: show_completions(bar, batch),
            )
        ]
        for context in self.contexts:
            rows = sampled_in(context, unit, engine, self.settings, seed, round_index=k, stage="hints")
            bar.advance(rows=len(rows), tokens=sum(row.sampled_tokens for row in rows))
            arms.append(rows)
        scored = [
            [replace(row, id=f"{row.task.id}.r{k}.t{arm}", index=arm) for row in session.scored(rows)]
            for arm, rows in enumerate(arms)
        ]
        by_task = [row for rows in zip(*scored, strict=True) for row in rows]
        show_rewards(bar, by_task, rows=0)
        return by_task, drawn(by_task)

    def early(self, total: Drawn) -> list[alarms.Alarm]:
        return []

    def alarms(self, total: Drawn) -> list[alarms.Alarm]:
        return []

    def expected(self, rows: Sequence[Task]) -> int | None:
        return len(rows) * (1 + len(self.contexts))


def judged(rows: Sequence[Sample], tried: Sequence[tuple[Context, str]], seed: int) -> tuple[Trial, ...]:
    """What came of each context (with its text), from the rows of `hints.jsonl`.

    The test pairs the tasks that were scored both times. A context that leaves more of them without a score
    is not better: one that makes wrong answers unreadable would drop just those tasks from its mean.
    """
    by_arm: dict[int, dict[str, float | None]] = {}
    for row in rows:
        by_arm.setdefault(row.index, {})[row.task.id] = row.reward
    found = []
    for arm, (context, text) in enumerate(tried, start=1):
        seen = compare(by_arm.get(0, {}), by_arm.get(arm, {}), seed, alternative="greater")
        better = bool(
            _scored(by_arm.get(arm, {})) >= _scored(by_arm.get(0, {}))
            and seen.difference
            and seen.difference > 0
            and seen.p_value is not None
            and seen.p_value <= ALPHA / len(tried)
        )
        found.append(
            Trial(
                kind=context.kind,
                text=text,
                tasks=seen.n,
                without=seen.before,
                with_=seen.after,
                p_value=seen.p_value,
                better=better,
            )
        )
    return tuple(found)


def _scored(rewards: Mapping[str, float | None]) -> int:
    return sum(one is not None for one in rewards.values())
