"""A run at a glance, from its files: no training row is read, so that a long run is shown as fast as a short
one. Figures only; `report/overview.py` has the words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from selfrefine.errors import DataError, RunFolderError
from selfrefine.records import Count
from selfrefine.reflection.changes import Flips, TagGain, by_tag, flips
from selfrefine.reflection.diagnosis import Diagnosis, diagnosis
from selfrefine.reflection.findings import WEAKNESSES_FILE, Weaknesses
from selfrefine.runfolder import audit
from selfrefine.runfolder.jsonl import read_json
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import REFLECTION, Run
from selfrefine.runfolder.summaries import FinalSummary, RoundSummary
from selfrefine.stats import Difference, paired_difference
from selfrefine.steps.evaluate import per_task


class Gain(Struct, frozen=True, kw_only=True):
    """From the starting policy to the accepted one on the same held-out tasks."""

    split: Literal["test", "gate"]
    """gate: where there is no test split, or it was not read again. Those tasks chose the policy, too."""
    change: Difference
    flips: Flips
    by_tag: tuple[TagGain, ...] = ()


class Rang(Struct, frozen=True, kw_only=True):
    """An alarm that rang, or a guard that was not content, in these rounds."""

    what: str
    """The stage of an alarm; `guard`, or `veto`."""
    name: str
    reason: str
    """Of the last time."""
    rounds: tuple[str, ...]


class Overview(Struct, frozen=True, kw_only=True):
    state: str
    """As `runs ls` has it."""
    rounds: tuple[RoundSummary, ...]
    seconds: dict[int, float]
    """By round, from events.jsonl."""
    learnt: dict[int, int]
    """Answers selected, by round; those of earlier rounds that were replayed are not counted."""
    tasks: dict[str, Count]
    """By split."""
    final: FinalSummary | None = None
    test_reads: Count = 0
    gain: Gain | None = None
    diagnosis: Diagnosis | None = None
    """Of the last committed round."""
    rang: tuple[Rang, ...] = ()
    weaknesses: Weaknesses | None = None
    damage: tuple[str, ...] = ()
    """What could not be read, a sentence each."""


def overview(run: Run) -> Overview:
    """Raises: RunFolderError where a round's end is damaged; what else is damaged is told in `damage`."""
    rounds = [folder.summary() for folder in run.rounds()]
    damage: list[str] = []

    def tried(read: Any) -> Any:
        try:
            return read()
        except (RunFolderError, DataError) as error:
            damage.append(str(error))
            return None

    if (seen := audit.glance(run, rounds)) is not None:
        damage.append(seen)
    last = len(rounds) - 1
    seconds, rang = tried(lambda: _history(run, rounds)) or ({}, ())
    return Overview(
        state="damaged" if seen is not None else audit.state(run),
        rounds=tuple(rounds),
        seconds=seconds,
        learnt=tried(lambda: _learnt(run, rounds)) or {},
        tasks=tried(lambda: {name: run.count_tasks(name) for name in run.manifest.tasks}) or {},
        final=tried(run.final_summary),
        test_reads=run.test_reads(),
        gain=tried(lambda: gain(run)) if rounds else None,
        diagnosis=tried(lambda: diagnosis(run, last, rows=False)) if last > 0 else None,
        rang=rang,
        weaknesses=tried(lambda: weaknesses(run)),
        damage=tuple(dict.fromkeys(damage)),
    )


def gain(run: Run) -> Gain | None:
    """On the test tasks once they were read again, before that on the gate tasks; None before any round.

    Raises: RunFolderError, DataError.
    """
    found = held_out_gain(run, "test", run.final) if run.final_file.is_file() else None
    if found is None and run.accepted_round:
        found = held_out_gain(run, "gate", run.round(run.accepted_round))
    return found


def held_out_gain(run: Run, split: Literal["test", "gate"], end: RoundDir) -> Gain | None:
    """From the starting policy to the one that was measured in `end`; None where one of them was not.

    Raises: RunFolderError, DataError.
    """
    if not (run.round(0).has(split) and end.has(split)):
        return None
    before, after = (list(folder.samples(split)) for folder in (run.round(0), end))
    seed = run.manifest.seeds.get("run", 0)
    return Gain(
        split=split,
        change=paired_difference(per_task(before), per_task(after), seed),
        flips=flips(before, after),
        by_tag=tuple(by_tag(before, after, seed)),
    )


def test_gain(run: Run, end: RoundDir | None = None) -> Difference | None:
    """Paired difference on the test split, from the starting policy to the accepted one; None where one of
    them was not measured. `end`: another final measurement than the last.

    Raises: RunFolderError, DataError.
    """
    start, end = run.round(0), end or run.final
    if not (start.has("test") and end.has("test")):
        return None
    before, after = (per_task(folder.samples("test")) for folder in (start, end))
    return paired_difference(before, after, seed=run.manifest.seeds["run"])


def weaknesses(run: Run) -> Weaknesses | None:
    """Those found last: by the run itself, or by a reflection on it. Raises: RunFolderError: damaged."""
    own = [folder.path for folder in reversed(run.rounds())]
    # `reflect RUN` may be later than the plan of the same round, never earlier.
    places = [run.path / REFLECTION, run.round(run.next_round()).path, *own]
    found = [told for place in places if (told := read_json(place / WEAKNESSES_FILE, Weaknesses)) is not None]
    return max(found, key=lambda one: one.after_round, default=None)


def round_seconds(run: Run) -> dict[int, float]:
    """Seconds of each round's finished stages, all attempts together. Raises: DataError."""
    return _of_rounds(place_seconds(run.events.read()))


def place_seconds(events: Iterable[dict[str, Any]]) -> dict[Any, float]:
    """The same by what the events call the place: a round's number, or `final`."""
    seconds: dict[Any, float] = {}
    for event in events:
        if event.get("kind") == "stage-end" and isinstance(event.get("seconds"), int | float):
            place = event.get("round")
            seconds[place] = seconds.get(place, 0.0) + event["seconds"]
    return seconds


def _of_rounds(seconds: Mapping[Any, float]) -> dict[int, float]:
    return {k: spent for k, spent in seconds.items() if isinstance(k, int)}


def _history(run: Run, rounds: Sequence[RoundSummary]) -> tuple[dict[int, float], tuple[Rang, ...]]:
    events = list(run.events.read())
    told: list[tuple[str, str, str, object]] = []
    for one in events:
        if one.get("kind") == "alarm":
            reason = str(one.get("reason") or _figure(one))
            told.append((str(one.get("stage")), str(one.get("alarm")), reason, one.get("round")))
    for summary in rounds:
        for guard in summary.guards:
            if guard.state != "ok" and guard.reason:
                what = "veto" if guard.state == "veto" else "guard"
                told.append((what, guard.name, guard.reason, summary.index))
    found: dict[tuple[str, str], Rang] = {}
    for what, name, reason, k in told:
        before = found[what, name].rounds if (what, name) in found else ()
        # A stage that was resumed rings again.
        rounds_ = tuple(dict.fromkeys((*before, str(k))))
        found[what, name] = Rang(what=what, name=name, reason=reason, rounds=rounds_)
    return _of_rounds(place_seconds(events)), tuple(found.values())


def _figure(event: dict[str, Any]) -> str:
    """Of a run whose events have no sentence."""
    name, value, limit = (event.get(key) for key in ("alarm", "value", "limit"))
    known = isinstance(value, int | float) and isinstance(limit, int | float)
    return f"{name} {value:.3g} (limit {limit:g})" if known else str(name)


def _learnt(run: Run, rounds: Sequence[RoundSummary]) -> dict[int, int]:
    found = {}
    for summary in rounds:
        told = read_json(run.round(summary.index).summary_file("selected"), dict[str, Any]) or {}
        if isinstance(told.get("selected"), int):
            found[summary.index] = told["selected"]
    return found
