"""The loop: generate, critique, reward, select, finetune, measure, decide; round after round."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

from selfrefine.errors import NothingToLearnError
from selfrefine.runfolder.ends import stop
from selfrefine.runfolder.summaries import RoundSummary
from selfrefine.stages.critique import Critique
from selfrefine.stages.finetune import finetune_round
from selfrefine.stages.gate import baseline, final, gate
from selfrefine.stages.generate import Generate
from selfrefine.stages.in_run import in_run
from selfrefine.stages.planned import planned, planned_stop
from selfrefine.stages.propose import Propose, Rate
from selfrefine.stages.rationalise import Rationalise
from selfrefine.stages.reflect import last_outcomes, reflect
from selfrefine.stages.resample import Resample
from selfrefine.stages.reward import Reward
from selfrefine.stages.select import Select
from selfrefine.stages.session import RunSession
from selfrefine.stats import Interval


class Ended(Struct, frozen=True, kw_only=True):
    """How a cycle ended. `nothing_to_learn` is the sentence behind exit code 8."""

    summaries: list[RoundSummary]
    final: Interval | None
    why: str
    nothing_to_learn: str | None = None


def cycle(session: RunSession) -> Ended:
    """Run, or go on with, a run until one of its ends. Whatever is on disk is not done again."""
    began = time.monotonic()
    run = session.run
    warn_if_self_measured(session)
    baseline(session)
    nothing: str | None = None
    while (why := why_stop(session, time.monotonic() - began)) is None:
        k = run.next_round()
        try:
            for stage in ROUND:
                stage(session, k)
                if (why := planned_stop(session, k)) is not None:
                    break
        except NothingToLearnError as error:
            why = nothing = str(error)
        if why is not None:
            break
    last_outcomes(session)
    measured = final(session) if run.tasks("test") else None
    summaries = [folder.summary() for folder in run.rounds()]
    return Ended(summaries=summaries, final=measured, why=why, nothing_to_learn=nothing)


@planned
def generate(session: RunSession, k: int) -> Struct:
    """generate.jsonl: answers to the round's tasks, and before them the tasks that the policy writes."""
    if session.config.propose.n:
        in_run(Propose(session, k), session, session.run.round(k))
    return in_run(Generate(session, k), session, session.run.round(k))


@planned
def critique(session: RunSession, k: int) -> Struct | None:
    """critique.jsonl: the answers with critiques, and their revisions; nothing where the run has none."""
    if not session.config.critique.passes:
        return None
    return in_run(Critique(session, k), session, session.run.round(k))


@planned
def reward(session: RunSession, k: int) -> Struct:
    """reward.jsonl, what the written tasks are worth by it, and what is sampled because of it: more prompts,
    answers found with a hint."""
    folder = session.run.round(k)
    found = in_run(Reward(session, k), session, folder)
    if session.config.propose.n:
        in_run(Rate(session, k), session, folder)
    if session.config.resample.groups:
        in_run(Resample(session, k), session, folder)
    if session.config.rationalise.n:
        in_run(Rationalise(session, k), session, folder)
    return found


@planned
def select(session: RunSession, k: int) -> Struct:
    """selected.jsonl: what is learnt from, replay included."""
    return in_run(Select(session, k), session, session.run.round(k))


ROUND: tuple[Callable[[RunSession, int], object], ...] = (
    reflect,
    generate,
    critique,
    reward,
    select,
    finetune_round,
    gate,
)
"""A round: each returns at once where its artifact is there. `gate` measures, decides and commits."""


def why_stop(session: RunSession, elapsed_s: float) -> str | None:
    """The reason to stop before the next round, or None.

    max_minutes counts this process's time and is looked at between rounds.
    """
    summaries = [folder.summary() for folder in session.run.rounds()]
    return stop(session.config.cycle, summaries, elapsed_s)


def warn_if_self_measured(session: RunSession) -> None:
    """A model that judges itself gets better in its own eyes only: said before it begins."""
    if session.config.gate.mode == "off" or session.run.next_round() > 0 or not session.self_measured:
        return
    names = ", ".join(scorer.name for scorer in session.measures)
    session.reporter.say(
        f"self-measured: the model judges its own held-out answers ({names}), so a gain is no evidence of "
        "improvement; start a run with another --measure for that"
    )
