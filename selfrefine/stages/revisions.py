"""The stage that asks whether critique pays: drafts, their revisions, and fresh samples for the same tokens.

All three are drawn as in training (a greedy revision mostly repeats its draft, a greedy fresh sample always
does), one draft a task, with the seeds of round 0 whatever the round. Fresh samples are defined in
`critique_outcome`; their reward is the mean over a draft's n.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from selfrefine.agreement import CalibrationSummary
from selfrefine.records import Sample, Task, groups
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.summaries import Cost, StageCost
from selfrefine.stages import alarms
from selfrefine.stages.base import Stage
from selfrefine.stages.in_run import in_run
from selfrefine.stages.passes import passes_of
from selfrefine.stages.progress import Bar, show_completions, show_rewards
from selfrefine.stages.session import RunSession
from selfrefine.stages.settings import critique_settings, critique_templates
from selfrefine.stats import Difference, Interval, interval, paired_difference
from selfrefine.steps.critique import critique
from selfrefine.steps.critique_outcome import (
    Arm,
    Claims,
    Nearness,
    Outcome,
    Tokens,
    calibrated,
    claims_made,
    near,
)
from selfrefine.steps.generate import generate
from selfrefine.steps.resume import n_sampled
from selfrefine.steps.units import cut
from selfrefine.steps.votes import Agreement, agreed
from selfrefine.sums import Sums

FRESH = "fresh"
"""Column of a fresh sample in revised.jsonl: how it was drawn, as the `drafts` or as the `revisions`."""
Means = dict[str, float | None]
"""By task id."""


class RevisionSums(Sums, frozen=True, kw_only=True):
    """`fresh`, by how it was drawn, and `revised` are of the tasks whose draft was revised; `revision` is of
    all."""

    draft: Means = {}
    revision: Means = {}
    revised: Means = {}
    fresh: dict[str, Means] = {}
    draft_tokens: int = 0
    critique_tokens: int = 0
    revision_tokens: int = 0
    fresh_tokens: int = 0
    outcome: Outcome = Outcome()


class RevisionSummary(StageCost, frozen=True, kw_only=True):
    """`draft` and `revision` over all tasks (where the critic was content the draft stands), `fresh` over the
    revised ones; each difference paired by task. Where revisions are sampled otherwise than drafts, fresh
    samples are drawn both ways, and `fresh` is the better of the two: `fresh_as` says which. A critic that is
    content with everything leaves no fresh sample and nothing to say: null."""

    draft: Interval
    revision: Interval
    fresh: Interval
    fresh_as: Arm | None = None
    arms: dict[str, Interval] = {}
    """Fresh samples by how they were drawn."""
    revision_minus_draft: Difference
    revision_minus_fresh: Difference
    tokens: Tokens
    nearness: Nearness = Nearness()
    claims: Claims = Claims()
    calibration: CalibrationSummary | None = None
    agreement: Agreement | None = None


class Revisions(Stage[Task, RevisionSums]):
    """Held-out tasks in; drafts, revisions and fresh samples out, all scored by what measures."""

    name = title = "revised"
    totals = RevisionSums
    summaries = RevisionSummary

    def __init__(self, session: RunSession, adapter: Path | None) -> None:
        self.session, self.adapter = session, adapter
        self.drawing = replace(session.config.generate, n=1)
        self.passes = passes_of(session, session.run.next_round())
        # With the fresh samples, also where training rounds save them.
        own = critique_settings(session.config, session.prompts_dir)
        self.settings = replace(own, control=True, passes=self.passes.n)
        self.templates = critique_templates(session.config, session.prompts_dir)

    def inputs(self, session: RunSession) -> Sequence[Task]:
        if self.passes.why:
            session.reporter.say(f"final {self.title}: {self.passes.why}")
        session.use_policy(self.adapter)
        return session.run.tasks("test")

    def units(self, rows: Iterable[Task]) -> Iterator[list[Task]]:
        new = self.drawing.max_new_tokens
        each = new + self.settings.passes * (self.settings.critique.max_new_tokens + new)
        return cut(rows, lambda _: each, self.session.engine.unit_tokens, lambda task: task.id)

    def make(self, unit: Sequence[Task], bar: Bar) -> tuple[list[Sample], RevisionSums]:
        session = self.session
        seed = session.config.seed
        by_model = session.config.evaluate.critic == "model"
        drafts = generate(
            unit,
            session.engine,
            self.drawing,
            seed,
            stage="revised",
            on_rows=lambda batch: show_completions(bar, batch),
        )
        result = critique(
            drafts,
            session.engine,
            session.critic,
            self.templates,
            self.settings,
            seed,
            session.measured,
            None if by_model else session.tell,
            () if by_model else session.critics,
        )
        show_rewards(bar, result.rows, session.measures, rows=0)
        fresh = [
            replace(row, extra={FRESH: Raw(msgspec.json.encode(arm))})
            for arm, drawn in result.controls.items()
            for row in drawn
        ]
        rows = [*result.rows, *fresh]
        return rows, replace(compared(rows), outcome=result.outcome)

    def summary(self, total: RevisionSums) -> RevisionSummary:
        return told(total, self.session.config.seed)

    def alarms(self, total: RevisionSums) -> list[alarms.Alarm]:
        return alarms.of_critiques(total.outcome, self.session.config.alarms, resume=self.settings.resume)


def compared(rows: Sequence[Sample]) -> RevisionSums:
    """Of drafts, revisions and fresh samples of whole tasks."""
    total = RevisionSums()
    for group in groups(rows):
        key = group[0].task.id
        asked_again: dict[str, list[Sample]] = {}
        for row in group:
            if (arm := fresh_as(row)) is not None:
                asked_again.setdefault(arm, []).append(row)
        thread = [row for row in group if not is_fresh(row)]
        revised = len(thread) > 1
        total += RevisionSums(
            draft={key: thread[0].reward},
            revision={key: thread[-1].reward},
            revised={key: thread[-1].reward} if revised else {},
            fresh={arm: {key: _mean([row.reward for row in own])} for arm, own in asked_again.items()}
            if revised
            else {},
            draft_tokens=thread[0].sampled_tokens,
            critique_tokens=sum(told.sampled_tokens for row in thread for told in row.critiques),
            revision_tokens=sum(map(n_sampled, thread[1:])),
            fresh_tokens=sum(row.sampled_tokens for own in asked_again.values() for row in own),
        )
    return total


def told(total: RevisionSums, seed: int) -> RevisionSummary:
    """Intervals and paired differences from sums. All of its tokens only measure."""
    tokens = Tokens(
        draft=total.draft_tokens,
        critique=total.critique_tokens,
        revision=total.revision_tokens,
        fresh=total.fresh_tokens,
    )
    every = tokens.draft + tokens.critique + tokens.revision + tokens.fresh
    arms = {arm: interval(list(own.values())) for arm, own in total.fresh.items()}
    means = {arm: arms[arm].mean for arm in get_args(Arm) if arm in arms}
    best: Arm | None = max(means, key=lambda arm: means[arm] or 0.0, default=None)
    fresh = total.fresh[best] if best is not None else {}
    return RevisionSummary(
        cost=Cost(tokens=every, measured_tokens=every),
        draft=interval(list(total.draft.values())),
        revision=interval(list(total.revision.values())),
        fresh=interval(list(fresh.values())),
        fresh_as=best,
        arms=arms,
        revision_minus_draft=paired_difference(total.draft, total.revision, seed=seed),
        revision_minus_fresh=paired_difference(fresh, total.revised, seed=seed),
        tokens=tokens,
        nearness=near(total.outcome),
        claims=claims_made(total.outcome),
        calibration=calibrated(total.outcome),
        agreement=agreed(total.outcome.agreement),
    )


def compare_revisions(session: RunSession, folder: RoundDir, adapter: Path | None) -> RevisionSummary:
    """The policy base + adapter on the test tasks: revised.jsonl and revised.json."""
    found = in_run(Revisions(session, adapter), session, folder)
    assert isinstance(found, RevisionSummary)
    return found


def is_fresh(row: Sample) -> bool:
    return fresh_as(row) is not None


def fresh_as(row: Sample) -> Arm | None:
    """How a fresh sample was drawn; None for what is none. Runs before there were two ways wrote `true`."""
    if not isinstance(row.extra, dict) or FRESH not in row.extra:
        return None
    return "revisions" if bytes(row.extra[FRESH]) == b'"revisions"' else "drafts"


def _mean(rewards: Sequence[float | None]) -> float | None:
    scored = [reward for reward in rewards if reward is not None]
    return sum(scored) / len(scored) if scored else None
