"""The stage `generate`: the current policy (accepted, or undecided) answers a round's tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from msgspec.structs import replace

from selfrefine.config import GenerateConfig
from selfrefine.records import Sample, Task
from selfrefine.reflection import applied
from selfrefine.runfolder.summaries import Cost, StageCost
from selfrefine.stages import alarms
from selfrefine.stages.base import Stage
from selfrefine.stages.progress import Bar, show_completions
from selfrefine.stages.propose import round_tasks
from selfrefine.stages.session import RunSession, Session
from selfrefine.stages.settings import choice_template
from selfrefine.steps import best_of
from selfrefine.steps.generate import Drawn, drawn, generate, task_units
from selfrefine.steps.in_context import sampled_in
from selfrefine.tasks.splits import draw


class GenerateSummary(StageCost, frozen=True, kw_only=True, omit_defaults=True):
    """`tokens` are sampled ones, `entropy` is nats per token. With `generate.best_of`, all samples count, and
    `dropped` of them are not written; `scored_tokens` were read to choose."""

    samples: int
    tasks: int
    truncated: int
    errors: int
    tokens: int
    entropy: float | None
    dropped: int = 0
    scored_tokens: int = 0


class Generate(Stage[Task, Drawn]):
    """Tasks in, settings.n samples of each out."""

    name = title = "generate"
    totals = Drawn
    summaries = GenerateSummary

    def __init__(self, session: Session, round_index: int = 0) -> None:
        self.session, self.round = session, round_index
        self.settings = session.config.generate
        if self.settings.best_of:
            self.settings = replace(self.settings, n=self.settings.best_of)
        self.context = applied.context(session.plan) if session.plan else None
        self.weight = applied.weights(session.plan) if session.plan else None

    def inputs(self, session: RunSession) -> Sequence[Task]:
        own = session.config
        train = session.run.tasks("train")
        tasks, again = draw(train, self.round, own.cycle.prompts_per_round, own.seed, self.weight)
        if again:
            session.reporter.say(
                f"round {self.round}: all training tasks have been used; starting a new pass in another order"
            )
        session.use_policy(session.run.current_adapter)
        return round_tasks(own, session.run.round(self.round), tasks) if own.propose.n else tasks

    def units(self, rows: Iterable[Task]) -> Iterator[list[Task]]:
        return task_units(rows, self.settings, self.session.engine.unit_tokens)

    def make(self, unit: Sequence[Task], bar: Bar) -> tuple[list[Sample], Drawn]:
        sample = generate if self.context is None else partial(sampled_in, self.context)
        rows = sample(
            unit,
            self.session.engine,
            self.settings,
            self.session.config.seed,
            round_index=self.round,
            on_rows=lambda batch: show_completions(bar, batch),
        )
        return chosen(rows, self.settings, self.session)

    def summary(self, total: Drawn) -> GenerateSummary:
        """What sampling for training came to."""
        return GenerateSummary(
            cost=Cost(tokens=total.tokens),
            samples=total.samples,
            tasks=total.tasks,
            truncated=total.truncated,
            errors=total.errors,
            tokens=total.tokens,
            entropy=total.entropy,
            dropped=total.dropped,
            scored_tokens=total.scored_tokens,
        )

    def early(self, total: Drawn) -> list[alarms.Alarm]:
        own = self.session
        return alarms.run_on_early(total, own.config.alarms, own.has_template, self.settings.stop)

    def alarms(self, total: Drawn) -> list[alarms.Alarm]:
        own = self.session.config
        return alarms.of_drawn(
            total,
            own.alarms,
            own.generate.temperature,
            template=self.session.has_template,
            given=self.settings.stop,
        )

    def expected(self, rows: Sequence[Task]) -> int | None:
        return len(rows) * self.settings.n


def chosen(rows: list[Sample], settings: GenerateConfig, session: Session) -> tuple[list[Sample], Drawn]:
    """The rows that are written: all, or with `best_of` one a task; and what sampling all came to."""
    total = drawn(rows)
    if not settings.best_of:
        return rows, total
    own = session.config.reward.settings
    asks = settings.by == "critic"
    choice = choice_template(session.config, session.prompts_dir) if asks else None
    judge = session.critic if asks else session.engine
    kept, read = best_of.choose(rows, settings.by, judge, own, choice)
    return kept, replace(total, dropped=len(rows) - len(kept), scored_tokens=read)
