"""The stage `select`: the answers worth learning from, and with a run, earlier ones to learn again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from selfrefine.errors import NothingSelectedError
from selfrefine.objectives import OBJECTIVES
from selfrefine.records import Sample
from selfrefine.seeds import derive
from selfrefine.stages.base import Stage
from selfrefine.stages.progress import Bar
from selfrefine.stages.session import RunSession, Session
from selfrefine.stages.settings import right_mark
from selfrefine.steps.select import replay, select, why_nothing
from selfrefine.sums import Sums


class SelectCounts(Sums, frozen=True, kw_only=True, omit_defaults=True):
    """Rows by what became of them; prompts_… count prompts. What is 0 is left out of selected.json."""

    samples: int = 0
    out_of_band: int = 0
    prompts_out_of_band: int = 0
    drafts: int = 0
    revisions: int = 0
    no_draft: int = 0
    no_critique: int = 0
    not_better: int = 0
    corrected: int = 0
    references_seen: int = 0
    critiques_truncated: int = 0
    errors: int = 0
    truncated: int = 0
    unscored: int = 0
    duplicates: int = 0
    below: int = 0
    over_the_cap: int = 0
    no_reference: int = 0
    equal_to_reference: int = 0
    unpaired: int = 0
    without_spread: int = 0
    prompts_without_spread: int = 0
    prompts_selected: int = 0
    selected: int = 0
    replayed: int = 0


class Select(Stage[Sample, SelectCounts]):
    """Scored answers in, those to learn from out. One unit: a selection holds its rows."""

    name, title = "selected", "select"
    totals = SelectCounts
    summaries = SelectCounts

    def __init__(self, session: Session, round_index: int = 0) -> None:
        self.session, self.round = session, round_index
        self.earlier: list[Sample] = []

    def inputs(self, session: RunSession) -> Sequence[Sample]:
        """All scored rows of the round; of the rationalised ones the right ones."""
        folder = session.run.round(self.round)
        self.earlier = [
            row
            for past in session.run.rounds()[1 : self.round]
            for row in past.samples("selected")
            if row.round == past.index
        ]
        rows = list(folder.samples("reward"))
        if folder.has("resampled"):
            rows += folder.samples("resampled")
        if folder.has("rationalised"):
            mark, hinted = right_mark(session.config), folder.samples("rationalised")
            rows += [row for row in hinted if row.reward is not None and row.reward >= mark]
        return rows

    def units(self, rows: Iterable[Sample]) -> Iterator[list[Sample]]:
        yield list(rows)

    def make(self, unit: Sequence[Sample], bar: Bar) -> tuple[list[Sample], SelectCounts]:
        """Raises: NothingSelectedError, saying why."""
        own = self.session.config
        chosen = select(unit, own.select)
        if not chosen.rows:
            where = f"round {self.round}: " if self.round else ""
            raise NothingSelectedError(f"{where}{why_nothing(chosen.counts)}", chosen.counts)
        again = replay(
            chosen.rows,
            self.earlier,
            own.train.replay,
            derive(own.seed, "round", self.round),
            # Weights come from a group's mean, and a row without its group would be its own mean.
            grouped=OBJECTIVES.get(own.objective.name).rows in ("groups", "all"),
        )
        bar.advance(rows=len(chosen.rows))  # its line: so many of the rows it was given
        return [*chosen.rows, *again], SelectCounts(**chosen.counts, replayed=len(again))

    def summary(self, total: SelectCounts) -> SelectCounts:
        return total
