"""The stage `propose`: the policy writes new tasks for a round, and after its answers they get their reward.

What a text becomes depends on the tasks that were read before it, so a resumed stage is told of those that an
earlier process committed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from selfrefine import prompts
from selfrefine.config import Config, GenerateConfig
from selfrefine.records import Sample, Task
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.summaries import Cost, StageCost
from selfrefine.stages.base import Stage
from selfrefine.stages.progress import Bar, show_completions
from selfrefine.stages.session import RunSession
from selfrefine.stages.settings import most_written, right_mark
from selfrefine.steps import propose
from selfrefine.steps.generate import generate, task_units
from selfrefine.steps.propose import Known, Proposed
from selfrefine.sums import Sums
from selfrefine.tasks.families import Family

FILE, RATED = "proposed", "learnable"


class ProposedSummary(StageCost, frozen=True, kw_only=True):
    """`proposals` texts became `new` tasks, or were `unreadable` (`why`), training tasks (`given`),
    `held_out` ones, or earlier proposals (`again`). `tokens` are sampled ones."""

    proposals: int
    new: int
    unreadable: int
    given: int
    held_out: int
    again: int
    errors: int
    truncated: int
    tokens: int
    why: dict[str, int]


class Propose(Stage[Task, Proposed]):
    """Requests with examples in; texts out, each with the task that was read from it, or why none."""

    name, title = FILE, "propose"
    totals = Proposed
    summaries = ProposedSummary

    def __init__(self, session: RunSession, round_index: int) -> None:
        self.session, self.round = session, round_index
        self.own = session.config.propose
        self.settings = sampling(session.config)

    @cached_property
    def family(self) -> Family:
        return Family(self.own.family, self.own.settings, self.session.run.tasks("train"))

    @cached_property
    def known(self) -> Known:
        """The run's tasks, and the proposals that earlier rounds answered: one beyond a round's share was
        never asked, and may be written again."""
        run = self.session.run
        known = Known(self.family, {name: run.tasks(name) for name in run.manifest.tasks})
        for past in run.rounds()[1 : self.round]:
            if past.has(FILE):
                for task in answered(self.session.config, past):
                    known.add(task)
        return known

    def inputs(self, session: RunSession) -> Sequence[Task]:
        template = prompts.load(session.run.prompts_dir / "propose.md", "propose")
        asked, self.like = propose.requests(
            self.family, template, self.own.n, self.own.examples, session.config.seed, self.round
        )
        session.use_policy(session.run.current_adapter)
        return asked

    def units(self, rows: Iterable[Task]) -> Iterator[list[Task]]:
        return task_units(rows, self.settings, self.session.engine.unit_tokens)

    def resumed(self, rows: Iterator[Sample]) -> None:
        for task in propose.tasks_of(rows):
            self.known.add(task)

    def make(self, unit: Sequence[Task], bar: Bar) -> tuple[list[Sample], Proposed]:
        rows = generate(
            unit,
            self.session.engine,
            self.settings,
            self.session.config.seed,
            round_index=self.round,
            stage="propose",
            on_rows=lambda batch: show_completions(bar, batch),
        )
        return propose.read(rows, self.known, self.like)

    def summary(self, total: Proposed) -> ProposedSummary:
        told = {name: getattr(total, name) for name in total.__struct_fields__}
        return ProposedSummary(cost=Cost(tokens=total.tokens), **told)


def sampling(config: Config) -> GenerateConfig:
    """How a task is written: one text a request."""
    own = config.propose
    return GenerateConfig(
        n=1,
        temperature=own.temperature,
        max_new_tokens=own.max_new_tokens,
        stop=own.stop,
        system=config.generate.system,
    )


def answered(config: Config, folder: RoundDir) -> list[Task]:
    """The first of a round's proposals, up to their share of its tasks."""
    return propose.tasks_of(folder.samples(FILE))[: most_written(config)]


def round_tasks(config: Config, folder: RoundDir, given: Sequence[Task]) -> list[Task]:
    """A round's tasks: the first of those that were written, up to their share; then of the given ones as
    many as are left. `given`: what the round would answer without."""
    written = answered(config, folder)
    return [*written, *given[: max(0, config.cycle.prompts_per_round - len(written))]]


class Rated(Sums, frozen=True, kw_only=True):
    """Written tasks by how many of their answers are right; `value` sums their rewards."""

    tasks: int = 0
    never: int = 0
    sometimes: int = 0
    always: int = 0
    unscored: int = 0
    value: float = 0.0


class RatedSummary(StageCost, frozen=True, kw_only=True):
    """Written tasks that were answered: right `never`, `sometimes` or `always`; `mean` learnability."""

    tasks: int
    never: int
    sometimes: int
    always: int
    unscored: int
    mean: float | None


class Rate(Stage[Sample, Rated]):
    """Texts that became tasks of the round in; the same with their reward out. One unit."""

    name = title = RATED
    totals = Rated
    summaries = RatedSummary

    def __init__(self, session: RunSession, round_index: int) -> None:
        self.session, self.round = session, round_index

    def inputs(self, session: RunSession) -> Sequence[Sample]:
        folder = session.run.round(self.round)
        self.answers = session.read(folder, "reward")
        return session.read(folder, FILE)

    def units(self, rows: Iterable[Sample]) -> Iterator[list[Sample]]:
        yield list(rows)

    def make(self, unit: Sequence[Sample], bar: Bar) -> tuple[list[Sample], Rated]:
        rows = propose.rated(unit, self.answers, right_mark(self.session.config))
        bar.advance(rows=len(rows))
        rates = [propose.pass_rate(row) for row in rows]
        return rows, Rated(
            tasks=len(rows),
            never=rates.count(0.0),
            always=rates.count(1.0),
            sometimes=sum(rate is not None and 0.0 < rate < 1.0 for rate in rates),
            unscored=rates.count(None),
            value=math.fsum(row.reward or 0.0 for row in rows),
        )

    def summary(self, total: Rated) -> RatedSummary:
        scored = total.tasks - total.unscored
        return RatedSummary(
            tasks=total.tasks,
            never=total.never,
            sometimes=total.sometimes,
            always=total.always,
            unscored=total.unscored,
            mean=total.value / scored if scored else None,
        )
