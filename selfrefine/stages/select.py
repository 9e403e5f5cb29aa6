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
from selfrefine.stages.settings import critique_templates, right_mark
from selfrefine.steps.critics import told
from selfrefine.steps.propose import turns
from selfrefine.steps.select import replay, select
from selfrefine.steps.select_broken import Breaker
from selfrefine.steps.select_details import TOLD
from selfrefine.steps.select_nothing import why_nothing
from selfrefine.sums import Sums


class SelectCounts(Sums, frozen=True, kw_only=True, omit_defaults=True):
    """Rows by what became of them (`Reason`). What was not looked at is null and not written."""

    samples: int | None = None
    out_of_band: int | None = None
    prompts_out_of_band: int | None = None
    drafts: int | None = None
    revisions: int | None = None
    not_criticised: int | None = None
    critiques_failed: int | None = None
    critiques_ok: int | None = None
    not_revised: int | None = None
    no_draft: int | None = None
    no_critique: int | None = None
    not_told: int | None = None
    not_better: int | None = None
    corrected: int | None = None
    broken: int | None = None
    too_far: int | None = None
    references_seen: int | None = None
    by_several: int | None = None
    critiques_truncated: int | None = None
    errors: int | None = None
    truncated: int | None = None
    unscored: int | None = None
    duplicates: int | None = None
    below: int | None = None
    over_the_cap: int | None = None
    no_reference: int | None = None
    equal_to_reference: int | None = None
    unpaired: int | None = None
    without_spread: int | None = None
    prompts_without_spread: int | None = None
    hinted: int | None = None
    unbalanced: int | None = None
    prompts_selected: int | None = None
    selected: int | None = None
    proposals: int | None = None
    """Of the selected: texts of written tasks."""
    replayed: int | None = None


class Select(Stage[Sample, SelectCounts]):
    """Scored answers in, those to learn from out. One unit: a selection holds its rows."""

    name, title = "selected", "select"
    totals = SelectCounts
    summaries = SelectCounts

    def __init__(self, session: Session, round_index: int = 0) -> None:
        self.session, self.round = session, round_index
        self.earlier: list[Sample] = []
        self.written: list[Sample] = []

    def inputs(self, session: RunSession) -> Sequence[Sample]:
        """All scored rows of the round; of the rationalised ones the right ones."""
        folder = session.run.round(self.round)
        self.earlier = [
            row
            for past in session.run.rounds()[1 : self.round]
            for row in past.samples("selected")
            if row.round == past.index
        ]
        if session.config.propose.n and session.config.propose.learn:
            self.written = turns(folder.samples("learnable"))
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
        chosen = select(unit, own.select, self._breaker())
        learnt = [*chosen.rows, *self.written]
        if not learnt:
            where = f"round {self.round}: " if self.round else ""
            why = why_nothing(
                unit,
                own.select,
                chosen.counts,
                in_run=isinstance(self.session, RunSession),
                hinted=own.rationalise.n > 0,
                template=self.session.has_template,
                given=self.session.config.generate.stop,
            )
            raise NothingSelectedError(f"{where}{why}", chosen.counts)
        again = replay(
            learnt,
            self.earlier,
            own.train.replay,
            derive(own.seed, "round", self.round),
            # Weights come from a group's mean, and a row without its group would be its own mean.
            grouped=OBJECTIVES.get(own.objective.name).rows in ("groups", "all"),
        )
        counts: dict[str, int | None] = {**chosen.counts, "selected": len(learnt)}
        if own.propose.n and own.propose.learn:
            counts["proposals"] = len(self.written)
        bar.advance(rows=len(learnt))  # its line: so many of the rows it was given
        return [*learnt, *again], SelectCounts(**counts, replayed=len(again) if self.round else None)

    def _breaker(self) -> Breaker | None:
        session, config = self.session, self.session.config
        if config.select.corrections != "broken" or session.tell is None or not session.scores:
            return None
        templates, mark = critique_templates(config, session.prompts_dir), right_mark(config)
        criticise = told(session.tell, TOLD, mark)
        return Breaker(session.scored, criticise, templates.revise, config.seed, mark)

    def summary(self, total: SelectCounts) -> SelectCounts:
        return total
