"""What the page is told of one run, read once, file by file; what cannot be read is in `problems`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from selfrefine.errors import SelfrefineError
from selfrefine.reflection.changes import Means, cuts
from selfrefine.reflection.findings import (
    CAUSES_FILE,
    PLAN_FILE,
    WEAKNESSES_FILE,
    Outcome,
    Plan,
    Weaknesses,
)
from selfrefine.reflection.overview import Gain, held_out_gain, round_seconds
from selfrefine.report.page.counts import Answers, Row, Steps, rows, training_log
from selfrefine.report.tables import measure_name
from selfrefine.runfolder.audit import glance, state
from selfrefine.runfolder.jsonl import read_json
from selfrefine.runfolder.round import TRAINING_LOG, RoundDir
from selfrefine.runfolder.run import REFLECTION, Run
from selfrefine.runfolder.summaries import FinalSummary, RoundSummary, RunManifest
from selfrefine.stages.revisions import RevisionSummary
from selfrefine.steps.critique_outcome import CritiqueSummary
from selfrefine.steps.evaluate import per_task

T = TypeVar("T")
S = TypeVar("S", bound=Struct)


class Told(Struct, kw_only=True):
    """One run as the page shows it. Rounds are keys; what a round does not have is absent."""

    run: Run
    name: str
    state: str = ""
    doing: str = ""
    """The stage that runs now: `round 3, generate`."""
    rounds: list[RoundSummary] = []
    """The committed ones that can be read, from 0."""
    final: FinalSummary | None = None
    gain: Gain | None = None
    """On the test tasks."""
    seconds: dict[int, float] = {}
    events: list[dict[str, Any]] = []
    """Alarms, warnings and what else is worth a sentence."""
    answers: dict[int, Answers] = {}
    """Of training tasks, scored ones; of a round that is not committed too."""
    gate: dict[int, Means] = {}
    """Mean reward of each gate task under a round's candidate."""
    cuts: dict[str, dict[str, str]] = {}
    """Of each gate task."""
    steps: dict[int, list[Steps]] = {}
    critiques: dict[int, CritiqueSummary] = {}
    revised: dict[str, RevisionSummary] = {}
    """"start" and "end": the comparison on test tasks, where it was made."""
    weaknesses: Weaknesses | None = None
    """The last ones found: by a round that plans, or by `reflect RUN` in the folder `reflection`."""
    causes: str = ""
    """causes.md beside them."""
    plan: Plan | None = None
    """The last one, which has the outcomes of all earlier ones."""
    unscored: list[int] = []
    """Rounds whose answers are there and were not scored yet."""
    problems: list[str] = []

    @property
    def outcomes(self) -> list[Outcome]:
        """Of all plans, oldest first: what the last plan knew, and what the end of the run told."""
        found = list(self.plan.outcomes) if self.plan is not None else []
        for event in self.events:
            if event.get("kind") == "outcome":
                with suppress(msgspec.ValidationError):
                    one = msgspec.convert(event.get("outcome"), Outcome)
                    found += [one] if one not in found else []
        return found

    @property
    def manifest(self) -> RunManifest:
        return self.run.manifest

    @property
    def measure(self) -> str:
        """The rewards that measure."""
        return measure_name(self.manifest.config)

    @property
    def trains_on(self) -> str:
        """The rewards that answers are selected by."""
        config = self.manifest.config
        return measure_name({"reward": config["reward"]} if config.get("reward", {}).get("use") else config)


def told(run: Run, name: str) -> Told:
    """Everything but the rows that are shown."""
    found = Told(run=run, name=name)
    attempt = _Attempt(found.problems)
    found.state = attempt(lambda: state(run)) or ""
    if found.state == "running":
        found.doing = doing(run.events.tail())
    for folder in attempt(run.rounds) or []:
        if (summary := attempt(folder.summary)) is not None:
            found.rounds.append(summary)
    if (damage := attempt(lambda: glance(run, found.rounds))) is not None:
        found.problems.append(damage)
    found.final = attempt(run.final_summary)
    found.seconds = attempt(lambda: round_seconds(run)) or {}
    found.events = attempt(lambda: [e for e in run.events.read() if e.get("kind") in _KINDS]) or []
    last = run.next_round()
    for k in range(last + 1):
        _read_round(found, run.round(k), k, attempt)
    for place in (*(run.round(k).path for k in range(last + 1)), run.path / REFLECTION):
        _read_reflection(found, place, attempt)
    found.gain = attempt(lambda: held_out_gain(run, "test", run.final))
    for where, folder in (("start", run.round(0)), ("end", run.final)):
        comparison = attempt(partial(folder.stage_summary, "revised", RevisionSummary))
        if comparison is not None:
            found.revised[where] = comparison
    return found


def doing(events: list[dict[str, Any]]) -> str:
    """The stage that was begun and has not ended, by the last events."""
    last: dict[str, Any] = next(
        (e for e in reversed(events) if e.get("kind") in ("stage-begin", "stage-end")), {}
    )
    if last.get("kind") != "stage-begin":
        return ""
    place = last.get("round")
    return f"{place if place == 'final' else f'round {place}'}, {last.get('stage')}"


_KINDS = frozenset(
    {
        "alarm",
        "warning",
        "drift",
        "plan-change",
        "history-lost",
        "outcome",
        "cycle",
        "end",
        "failed",
        "stopped",
    }
)


class _Attempt:
    """Call it with what may fail: a damaged file costs what stands in it, not the page."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def __call__(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except (SelfrefineError, OSError) as error:
            sentence = str(error)
            if sentence not in self.problems:
                self.problems.append(sentence)
            return None


def _read_round(found: Told, folder: RoundDir, k: int, attempt: _Attempt) -> None:
    if folder.has("reward"):
        attempt(lambda: found.answers.__setitem__(k, _answers(rows(folder.unchanged("reward")))))
    elif folder.has("generate"):
        found.unscored.append(k)
    if folder.has("gate"):
        measured = attempt(lambda: list(folder.samples("gate"))) or []
        found.gate[k] = per_task(measured)
        found.cuts |= {row.task.id: cuts(row.task) for row in measured}
    log = folder.file(TRAINING_LOG)
    if log.is_file():
        attempt(lambda: found.steps.__setitem__(k, training_log(log)))
    critiques = attempt(lambda: folder.stage_summary("critique", CritiqueSummary))
    if critiques is not None:
        found.critiques[k] = critiques


def _read_reflection(found: Told, place: Path, attempt: _Attempt) -> None:
    """Where it was made for a later round than what was found before, or again for the same one."""
    weak = attempt(lambda: read_json(place / WEAKNESSES_FILE, Weaknesses))
    if weak is not None and (found.weaknesses is None or weak.after_round >= found.weaknesses.after_round):
        found.weaknesses = weak
        causes = place / CAUSES_FILE
        found.causes = (
            attempt(partial(causes.read_text, "utf-8", "replace")) or "" if causes.is_file() else ""
        )
    plan = attempt(lambda: read_json(place / PLAN_FILE, Plan))
    if plan is not None and (found.plan is None or plan.round >= found.plan.round):
        found.plan = plan


def _answers(found: Iterator[Row]) -> Answers:
    counts = Answers()
    for row in found:
        if row.parent_id is None:
            counts.add(row)
    return counts
