"""The loop: generate, critique, reward, select, finetune, measure, decide; round after round."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from msgspec import Struct

from selfrefine.errors import NothingToLearnError
from selfrefine.records import RoundSummary
from selfrefine.stages import stages
from selfrefine.stages.work import Work
from selfrefine.stats import Interval


class Ended(Struct, frozen=True, kw_only=True):
    """How a cycle ended. `nothing_to_learn` is the sentence behind exit code 8."""

    summaries: list[RoundSummary]
    final: Interval | None
    why: str
    nothing_to_learn: str | None = None


def cycle(work: Work) -> Ended:
    """Run, or go on with, a run until one of its ends. Whatever is on disk is not done again."""
    began = time.monotonic()
    warn_if_self_measured(work)
    stages.baseline(work)
    nothing: str | None = None
    while (why := why_stop(work, time.monotonic() - began)) is None:
        k = work.run.next_round()
        stages.generate(work, k)
        if work.config.critique.passes:
            stages.critique(work, k)
        stages.reward(work, k)
        try:
            counts = stages.select(work, k)
            stages.finetune(work, k)
        except NothingToLearnError as error:
            why = nothing = str(error)
            break
        stages.gate(work, k, counts)
    final = stages.final(work) if work.run.tasks("test") else None
    summaries = [folder.summary() for folder in work.run.rounds()]
    return Ended(summaries=summaries, final=final, why=why, nothing_to_learn=nothing)


def why_stop(work: Work, elapsed_s: float) -> str | None:
    """The reason to stop before the next round, or None.

    max_minutes counts this process's time and is looked at between rounds.
    """
    settings = work.config.cycle
    summaries = [folder.summary() for folder in work.run.rounds()]
    rejected = 0
    for summary in reversed(summaries[1:]):
        if summary.gate is None or summary.gate.outcome != "reject":
            break
        rejected += 1
    if len(summaries) > settings.rounds:
        return f"{settings.rounds} rounds are done"
    reached = accepted_gate(summaries)
    if settings.until is not None and reached is not None and reached >= settings.until:
        return f"the gate tasks are at {reached:.3f}, the target is {settings.until:g}"
    if rejected >= settings.patience:
        return f"{rejected} rounds in a row were not better (patience {settings.patience})"
    spent = spent_tokens(one.counts for one in summaries)
    if settings.max_tokens is not None and spent >= settings.max_tokens:
        return f"{spent} tokens are sampled and trained, {settings.max_tokens} were to be"
    if settings.max_minutes is not None and elapsed_s > settings.max_minutes * 60:
        return f"{settings.max_minutes:g} minutes are over"
    return None


def spent_tokens(rounds: Iterable[Mapping[str, int]]) -> int:
    """Of the rounds' counts: sampled to learn from, and trained on; what measures costs is the same for every
    method."""
    return sum(own["tokens"] - own["measured_tokens"] + own.get("trained_tokens", 0) for own in rounds)


def accepted_gate(summaries: list[RoundSummary]) -> float | None:
    """The accepted policy's mean on the gate tasks."""
    if not summaries:
        return None
    measured = summaries[summaries[-1].accepted_round].measures.get("gate")
    return measured["mean"] if measured else None


def warn_if_self_measured(work: Work) -> None:
    """A model that judges itself gets better in its own eyes only: said before it begins."""
    if work.config.gate.mode == "off" or work.run.next_round() > 0 or not work.self_measured:
        return
    names = ", ".join(scorer.name for scorer in work.measures)
    work.watch.say(
        f"self-measured: held-out answers are judged by the model itself ({names}); a gain in that is "
        "not a measured improvement (name another reward with --measure)"
    )
