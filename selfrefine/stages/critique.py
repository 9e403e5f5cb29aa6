"""The stage `critique`: the critic criticises the answers, and the policy revises them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from selfrefine.errors import ConfigError, DataError
from selfrefine.records import Sample
from selfrefine.stages import alarms
from selfrefine.stages.base import Stage
from selfrefine.stages.passes import passes_of
from selfrefine.stages.progress import Bar, show_rewards, shown
from selfrefine.stages.session import RunSession, Session
from selfrefine.stages.settings import check_critique, critique_settings, critique_templates
from selfrefine.steps.critique import critique
from selfrefine.steps.critique_outcome import CritiqueSummary, Outcome, summary
from selfrefine.steps.reward import require_scored
from selfrefine.steps.units import sample_units


class Critique(Stage[Sample, Outcome]):
    """Answers in, the same rows with critiques, each followed by its revisions, out."""

    name = title = "critique"
    totals = Outcome
    summaries = CritiqueSummary

    def __init__(self, session: Session, round_index: int = 0) -> None:
        self.session, self.round = session, round_index
        check_critique(session.config)
        self.passes = passes_of(session, round_index)
        own = critique_settings(session.config, session.prompts_dir)
        self.settings = replace(own, passes=self.passes.n)
        self.templates = critique_templates(session.config, session.prompts_dir)
        self.score = session.scored if session.scores else None

    def inputs(self, session: RunSession) -> Sequence[Sample]:
        if not session.config.critique.passes:
            raise ConfigError("this run has critique.passes = 0: its rewards would not read the critiques")
        if self.passes.why:
            session.reporter.say(f"round {self.round} critique: {self.passes.why}")
        return session.read(session.run.round(self.round), "generate")

    def units(self, rows: Iterable[Sample]) -> Iterator[list[Sample]]:
        own = self.settings
        each = own.passes * (own.critique.max_new_tokens + own.revision.max_new_tokens)
        return sample_units(rows, each, self.session.engine.unit_tokens)

    def make(self, unit: Sequence[Sample], bar: Bar) -> tuple[list[Sample], Outcome]:
        session = self.session
        policy = shown(session.engine, bar)
        result = critique(
            unit,
            policy,
            policy if session.critic is session.engine else shown(session.critic, bar),
            self.templates,
            self.settings,
            session.config.seed,
            self.score,
            session.tell,
            session.critics,
        )
        show_rewards(bar, result.rows, session.scorers if session.scores else (), rows=len(unit))
        return result.rows, result.outcome

    def summary(self, total: Outcome) -> CritiqueSummary:
        """Raises: DataError where one of the rewards could score no row, as `reward` does, and where what
        tells what is wrong failed on every text."""
        if self.score is not None:
            names = {scorer.name for scorer in self.session.scorers}
            require_scored({name: sums for name, sums in total.rewards.items() if name in names})
        found = summary(total)
        told = self.session.tell or self.session.critics
        if told and found.critiques and found.failed_critiques == found.critiques:
            own = self.session.config.critique
            who = f"critique.source {own.source}" if self.session.tell else "critique.critics"
            texts = "the only text" if found.critiques == 1 else f"any of the {found.critiques:,} texts"
            raise DataError(
                f"{who} could not criticise {texts}: {found.first_failure}"
                + ("; score them with -r NAME" if "rewards" in own.asked and self.score is None else "")
            )
        return found

    def alarms(self, total: Outcome) -> list[alarms.Alarm]:
        return alarms.of_critiques(total, self.session.config.alarms, resume=self.settings.resume)
