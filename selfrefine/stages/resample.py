"""The stage `resample`: further prompts for a round, until enough of them have something to compare.

A stage's plan may not depend on what is done, so the plan is everything that could be sampled, in fixed
units, and each unit decides from the committed rows before it, and from them only, whether it samples or
stays empty: a resumed run decides alike. The budget counts what a unit may cost at most, so it is never
exceeded.

Source: Yu et al. 2025, "DAPO", section 3.2 (dynamic sampling).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from selfrefine.config import SelectConfig
from selfrefine.records import Sample, Task
from selfrefine.seeds import derive
from selfrefine.stages.generate import Generate
from selfrefine.stages.progress import Bar, show_rewards
from selfrefine.stages.session import RunSession
from selfrefine.steps.generate import Drawn, task_units
from selfrefine.steps.select import select
from selfrefine.tasks.splits import draw


class Resample(Generate):
    """Tasks that the round did not draw, in; scored samples of as many as it takes, out."""

    name, title = "resampled", "resample"

    def __init__(self, session: RunSession, round_index: int) -> None:
        super().__init__(session, round_index)
        self.own = session.config.resample
        self.so_far: list[Sample] = []
        self.spent = 0

    def inputs(self, session: RunSession) -> Sequence[Task]:
        """The other training tasks, shuffled for this round."""
        config, k = session.config, self.round
        self.so_far = session.read(session.run.round(k), "reward")
        train = session.run.tasks("train")
        drawn, _ = draw(train, k, config.cycle.prompts_per_round, config.seed, self.weight)
        drawn_now = {task.id for task in drawn}
        others = [task for task in train if task.id not in drawn_now]
        return sorted(others, key=lambda task: (derive(config.seed, "resample", k, task.id), task.id))

    def units(self, rows: Iterable[Task]) -> Iterator[list[Task]]:
        limit = min(self.session.engine.unit_tokens, self.own.max_tokens)
        return task_units(rows, self.settings, limit)

    def resumed(self, rows: Iterator[Sample]) -> None:
        self._count(list(rows))

    def make(self, unit: Sequence[Task], bar: Bar) -> tuple[list[Sample], Drawn]:
        most = len(unit) * self.settings.n * self.settings.max_new_tokens
        enough = teaching(self.so_far, self.session.config.select) >= self.own.groups
        if enough or self.spent + most > self.own.max_tokens:
            return [], Drawn()
        rows, came_to = super().make(unit, bar)
        scored = self.session.scored(rows)
        show_rewards(bar, scored, self.session.scorers, rows=0)
        self._count(scored)
        return scored, came_to

    def _count(self, rows: list[Sample]) -> None:
        self.so_far += rows
        self.spent += sum(row.sampled_tokens for row in rows)

    def expected(self, rows: Sequence[Task]) -> int | None:
        return None


def teaching(samples: list[Sample], config: SelectConfig) -> int:
    """Prompts of which the selection takes something."""
    return select(samples, config).counts.get("prompts_selected", 0)
