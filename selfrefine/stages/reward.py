"""The stage `reward`: every answer gets its scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from selfrefine.objectives import OBJECTIVES
from selfrefine.records import Sample
from selfrefine.stages import alarms
from selfrefine.stages.base import Stage
from selfrefine.stages.progress import Bar, show_rewards
from selfrefine.stages.session import RunSession, Session
from selfrefine.steps.reward import (
    RewardSummary,
    RewardSums,
    needs_engine,
    parse_spec,
    require_some_scored,
    scored_sums,
    summary,
)
from selfrefine.steps.scoring import trained_specs
from selfrefine.steps.units import sample_units


class Reward(Stage[Sample, RewardSums]):
    """Answers in, the same rows with rewards and their composite out."""

    name = title = "reward"
    totals = RewardSums
    summaries = RewardSummary

    def __init__(self, session: Session, round_index: int = 0) -> None:
        self.session, self.round = session, round_index

    def inputs(self, session: RunSession) -> Sequence[Sample]:
        source = "critique" if session.config.critique.passes else "generate"
        return session.read(session.run.round(self.round), source)

    def units(self, rows: Iterable[Sample]) -> Iterator[list[Sample]]:
        return sample_units(rows)

    def make(self, unit: Sequence[Sample], bar: Bar) -> tuple[list[Sample], RewardSums]:
        rows: list[Sample] = []
        for part in self._parts(unit):
            scored = self.session.scored(part)
            show_rewards(bar, scored, self.session.scorers)
            rows += scored
        return rows, scored_sums(rows, self.session.scorers)

    def _parts(self, unit: Sequence[Sample]) -> list[list[Sample]]:
        """The unit task by task, so that slow rewards show how far they are; whole where a model is asked,
        which takes many rows at once, or where a task's rows do not stand together."""
        parts = [list(rows) for _, rows in groupby(unit, key=lambda row: row.task.id)]
        asks = needs_engine(map(parse_spec, trained_specs(self.session.config)))
        together = len(parts) == len({part[0].task.id for part in parts})
        return parts if together and not asks else [list(unit)]

    def summary(self, total: RewardSums) -> RewardSummary:
        """Raises: DataError where one of the rewards could score no row; nothing is then left behind."""
        found = summary(total, self.session.scorers)
        require_some_scored(found)
        return found

    def alarms(self, total: RewardSums) -> list[alarms.Alarm]:
        own = self.session.config
        if OBJECTIVES.get(own.objective.name).teacher is not None:
            return []  # what its teacher says is learnt from every answer, whatever its reward
        return alarms.of_rewards(total, own.alarms)
