"""The stage `rationalise`: answers, found with the reference as a hint, to what no sample got right."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from selfrefine import prompts
from selfrefine.records import Sample, Task
from selfrefine.stages.generate import Generate
from selfrefine.stages.progress import Bar, show_completions, show_rewards
from selfrefine.stages.session import RunSession
from selfrefine.stages.settings import right_mark
from selfrefine.steps.generate import Drawn, drawn
from selfrefine.steps.rationalise import rationalise, unsolved


class Rationalise(Generate):
    """Unsolved tasks in; scored samples under the tasks' own prompts out, right or not."""

    name, title = "rationalised", "rationalise"

    def __init__(self, session: RunSession, round_index: int) -> None:
        super().__init__(session, round_index)
        self.settings = replace(self.settings, n=session.config.rationalise.n)
        self.template = prompts.load(session.run.prompts_dir / "hint.md", "hint")

    def inputs(self, session: RunSession) -> Sequence[Task]:
        scored = session.read(session.run.round(self.round), "reward")
        return unsolved(scored, right_mark(session.config))

    def make(self, unit: Sequence[Task], bar: Bar) -> tuple[list[Sample], Drawn]:
        rows = rationalise(
            unit,
            self.session.engine,
            self.template,
            self.settings,
            self.session.config.seed,
            round_index=self.round,
            score=self.session.scored,
            on_rows=lambda batch: show_completions(bar, batch),
        )
        show_rewards(bar, rows, self.session.scorers, rows=0)
        return rows, drawn(rows)
