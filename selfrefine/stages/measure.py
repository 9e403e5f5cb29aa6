"""The stage that measures: a policy's answers to held-out tasks, scored, with an interval.

As `evaluate` it stands alone; in a run it is a split's (gate, test), for the policy that is to be measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from selfrefine.errors import ConfigError
from selfrefine.records import Sample, Task
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.summaries import Cost, StageCost
from selfrefine.stages import alarms
from selfrefine.stages.base import Stage
from selfrefine.stages.generate import chosen
from selfrefine.stages.in_run import in_run
from selfrefine.stages.progress import Bar, show_completions, show_rewards
from selfrefine.stages.session import RunSession, Session
from selfrefine.stats import Interval, interval
from selfrefine.steps.evaluate import per_task
from selfrefine.steps.generate import Drawn, generate, task_units
from selfrefine.steps.reward import RewardSummary, RewardSums, require_some_scored, scored_sums, summary
from selfrefine.sums import Sums


class Measured(Sums, frozen=True, kw_only=True):
    """`values`: by task id, the mean reward of its samples."""

    values: dict[str, float | None] = {}
    drawn: Drawn = Drawn()
    rewards: RewardSums = RewardSums()


class MeasureSummary(StageCost, frozen=True, kw_only=True, omit_defaults=True):
    """The mean over tasks with its interval, and the rewards one by one. With `evaluate.best_of`, `truncated`
    and `errors` count among all samples; `dropped` and `scored_tokens` as of `generate`."""

    mean: Interval
    truncated: int
    errors: int
    rewards: RewardSummary
    dropped: int = 0
    scored_tokens: int = 0


class Measure(Stage[Task, Measured]):
    """Held-out tasks in, scored answers out. Always round 0's seeds: policies are compared on equal draws."""

    totals = Measured
    summaries = MeasureSummary

    def __init__(self, session: Session, split: str = "evaluate", adapter: Path | None = None) -> None:
        self.session, self.adapter = session, adapter
        self.name = self.title = split
        self.settings = session.config.evaluate.sampled(session.config.generate)

    def inputs(self, session: RunSession) -> Sequence[Task]:
        session.use_policy(self.adapter)
        return session.run.tasks(self.name)

    def units(self, rows: Iterable[Task]) -> Iterator[list[Task]]:
        return task_units(rows, self.settings, self.session.engine.unit_tokens)

    def make(self, unit: Sequence[Task], bar: Bar) -> tuple[list[Sample], Measured]:
        session = self.session
        answers = generate(
            unit,
            session.engine,
            self.settings,
            session.config.seed,
            stage=self.name,
            on_rows=lambda batch: show_completions(bar, batch),
        )
        kept, total = chosen(answers, self.settings, session)
        rows = session.measured(kept)
        show_rewards(bar, rows, session.measures, rows=0)
        return rows, Measured(values=per_task(rows), drawn=total, rewards=scored_sums(rows, session.measures))

    def summary(self, total: Measured) -> MeasureSummary:
        """Raises: DataError where a reward could score no row; nothing is then left behind."""
        own = total.drawn
        found = MeasureSummary(
            cost=Cost(tokens=own.tokens, measured_tokens=own.tokens),
            mean=interval(list(total.values.values())),
            truncated=own.truncated,
            errors=own.errors,
            rewards=summary(total.rewards, self.session.measures),
            dropped=own.dropped,
            scored_tokens=own.scored_tokens,
        )
        require_some_scored(found.rewards)
        return found

    def early(self, total: Measured) -> list[alarms.Alarm]:
        """A base model that does not end its answers is found out when round 0 is measured."""
        own = self.session
        return alarms.run_on_early(total.drawn, own.config.alarms, own.has_template, self.settings.stop)

    def expected(self, rows: Sequence[Task]) -> int | None:
        return len(rows) * self.settings.n


def measure(session: RunSession, folder: RoundDir, split: str, adapter: Path | None) -> Interval:
    """The policy base + adapter on a held-out split: SPLIT.jsonl in `folder`; its mean with an interval.

    Raises: RunFolderError where the file is of another policy; ConfigError where nothing could be scored.
    """
    if adapter is not None and adapter == folder.adapter:
        folder.require("adapter")
    stage = Measure(session, split, adapter)
    if folder.has(split):
        session.use_policy(adapter)
        session.check_policy(folder.samples(split), folder.file(split))
    summary = in_run(stage, session, folder)
    assert isinstance(summary, MeasureSummary)
    found = summary.mean
    if found.mean is None:
        told = summary.rewards.rewards.items()
        errors = "; ".join(f"{name}: {one.first_error}" for name, one in told if one.first_error)
        raise ConfigError(f"{folder.file(split)}: no answer has a score for all of its rewards ({errors})")
    return found
