"""What a cycle ends with: the table, the gain on the test split, where the run is, what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from rich.console import Group, RenderableType

from selfrefine.config import Config, CycleConfig
from selfrefine.layers import stored
from selfrefine.lineage.tested import test_gain as test_gain
from selfrefine.report.parts import examples, part_table
from selfrefine.report.safe_text import text
from selfrefine.report.tables import RoundRow, measure_name, round_rows, round_table
from selfrefine.report.words import revised_lines, with_interval
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import RoundSummary
from selfrefine.stages.cycle import Ended, stop
from selfrefine.stages.revisions import RevisionSummary
from selfrefine.words import count


def round_seconds(run: Run) -> dict[int, float]:
    """Seconds of each round's finished stages, all attempts together."""
    seconds: dict[int, float] = {}
    for event in run.events.read():
        if event.get("kind") == "stage-end" and isinstance(event.get("round"), int):
            k = event["round"]
            seconds[k] = seconds.get(k, 0.0) + float(event.get("seconds", 0.0))
    return seconds


def final_row(run: Run) -> RoundRow | None:
    """The accepted policy on the test split, where it was measured."""
    told = run.final_summary()
    if told is None:
        return None
    kept = f"round {told.accepted_round}" if told.accepted_round else "the start"
    return RoundRow(label="final", test=told.test, decision=kept)


def revised(folder: RoundDir) -> RevisionSummary | None:
    """The comparison of revisions on the test tasks, where one was made there."""
    return folder.stage_summary("revised", RevisionSummary)


def ending(run: Run, ended: Ended, self_measured: bool = False) -> RenderableType:
    """For a person, on stderr."""
    rows = round_rows(ended.summaries, round_seconds(run))
    final = final_row(run)
    table = round_table([*rows, final] if final else rows, measure=measure_name(run.manifest.config))
    own = stored(run.manifest.config)
    gain = test_gain(run)
    # What it could not learn from is the error that follows.
    nothing = f"nothing to learn in round {len(ended.summaries)}" if ended.nothing_to_learn else None
    lines = [f"ended: {nothing or ended.why}"]
    if gain is not None:
        what = "change in the model's own judgement (self-measured)" if self_measured else "gain"
        lines.append(
            f"{what} on {count(gain.n, 'test task')}, paired: {with_interval(gain)} "
            f"(test split measured {count(run.test_reads(), 'time')})"
        )
    if told := revised(run.final):
        lines += revised_lines(told)
    if shown := examples(run):
        lines += ["test answers, start and end:", *shown]
    lines.append(f"run folder: {run.path}")
    adapter = run.path / "adapter"
    if adapter.exists():
        tasks, folder = (shlex.quote(str(path)) for path in (run.path / "tasks" / "test.jsonl", adapter))
        model = "" if own.model == Config().model else f" --model {shlex.quote(own.model)}"
        greedy = f"-n 1 --temperature 0 --max-new-tokens {own.generate.max_new_tokens}"
        lines.append(f"try it: head -3 {tasks} | selfrefine generate {greedy} --adapter {folder}{model}")
    last = ended.summaries[-1] if ended.summaries else None
    if last is not None and last.undecided_round is not None:
        lines.append(
            f"round {last.index} is undecided: further rounds continue from it; the accepted policy is "
            + (f"that of round {last.accepted_round}" if last.accepted_round else "the starting one")
        )
    more = None if ended.nothing_to_learn else going_on(own.cycle, ended.summaries)
    extend = "" if more is None else " ".join([f" · selfrefine cycle --run {run.called}", *more])
    lines.append(f"next: selfrefine runs show {run.called}{extend}")
    parts = part_table(run)
    tables = [table] if parts is None else [table, parts]
    return Group(*tables, *(text(line, newlines=True) for line in lines))


def going_on(settings: CycleConfig, done: Sequence[RoundSummary]) -> list[str] | None:
    """The flags with which `cycle --run` begins another round; None where more rounds alone do not make it.

    `settings` are those of the manifest: what an earlier command was given beside them does not last.
    """
    if not settings.rounds:  # made to measure only, perhaps with a model that cannot be trained
        return None
    if stop(settings, done) is None:
        return []
    return None if stop(replace(settings, rounds=len(done)), done) else ["--rounds", str(len(done))]


def summary(run: Run, ended: Ended) -> dict[str, Any]:
    """The same as one object, for --summary-json."""
    gain = test_gain(run)
    return {
        "stage": "cycle",
        "run": str(run.path),
        "why": ended.why,
        "nothing_to_learn": ended.nothing_to_learn,
        "rounds": msgspec.to_builtins(ended.summaries),
        "accepted_round": ended.summaries[-1].accepted_round if ended.summaries else 0,
        "test": msgspec.to_builtins(ended.final) if ended.final else None,
        "test_gain": msgspec.to_builtins(gain) if gain else None,
        "revised": msgspec.to_builtins(revised(run.final)),
    }
