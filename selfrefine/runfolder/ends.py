"""When a run ends, and how it goes on: from its committed rounds and the settings that may still change."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from selfrefine.config import CycleConfig
from selfrefine.runfolder.summaries import RoundSummary
from selfrefine.words import count


def stop(settings: CycleConfig, summaries: Sequence[RoundSummary], elapsed_s: float = 0.0) -> str | None:
    """The first reason to stop after these committed rounds, or None."""
    rejected = rejected_in_a_row(summaries)
    if len(summaries) > settings.rounds:
        return f"{count(len(summaries) - 1, 'round')} done"
    reached = accepted_gate(summaries)
    if settings.until is not None and reached is not None and reached >= settings.until:
        return f"gate target reached: {reached:.3f} of {settings.until:g}"
    if rejected >= settings.patience:
        last = "the last round" if rejected == 1 else f"the last {count(rejected, 'round')}"
        return f"no improvement in {last} (patience {settings.patience})"
    spent = sum(one.cost.spent for one in summaries)
    if settings.max_tokens is not None and spent >= settings.max_tokens:
        return f"token budget reached: {spent:,} of {settings.max_tokens:,}"
    if settings.max_minutes is not None and elapsed_s > settings.max_minutes * 60:
        return f"time limit reached: {settings.max_minutes:g} min"
    return None


def rejected_in_a_row(summaries: Sequence[RoundSummary]) -> int:
    """How many of the last rounds were rolled back."""
    rejected = 0
    for summary in reversed(summaries[1:]):
        if summary.gate is None or summary.gate.outcome != "reject":
            break
        rejected += 1
    return rejected


def accepted_gate(summaries: Sequence[RoundSummary]) -> float | None:
    """The accepted policy's mean on the gate tasks."""
    if not summaries:
        return None
    measured = summaries[summaries[-1].accepted_round].measures.get("gate")
    return measured.mean if measured else None


def going_on(settings: CycleConfig, done: Sequence[RoundSummary]) -> list[str] | None:
    """The flags with which `cycle --run` begins another round; None where more rounds alone do not make it.

    `settings` are those of the manifest: what an earlier command was given beside them does not last.
    """
    if not settings.rounds:  # made to measure only, perhaps with a model that cannot be trained
        return None
    if stop(settings, done) is None:
        return []
    return None if stop(replace(settings, rounds=len(done)), done) else ["--rounds", str(len(done))]
