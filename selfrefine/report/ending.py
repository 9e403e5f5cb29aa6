"""What a cycle ends with: the table, the gain on the test split, where the run is, what to type next."""

from __future__ import annotations

import shlex
from typing import Any

import msgspec
from rich.console import Group, RenderableType

from selfrefine.config import Config
from selfrefine.layers import stored
from selfrefine.reflection.overview import Gain, gain, round_seconds
from selfrefine.report.criticised import critic_lines
from selfrefine.report.diagnosed import facts, flipped, tag_gains
from selfrefine.report.parts import examples, part_table
from selfrefine.report.safe_text import text
from selfrefine.report.tables import final_row, measure_name, round_rows, round_table
from selfrefine.report.words import revised_lines, with_interval
from selfrefine.runfolder.ends import going_on
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import Run
from selfrefine.stages.cycle import Ended
from selfrefine.stages.revisions import RevisionSummary
from selfrefine.words import count


def revised(folder: RoundDir) -> RevisionSummary | None:
    """The comparison of revisions on the test tasks, where one was made there."""
    return folder.stage_summary("revised", RevisionSummary)


def ending(run: Run, ended: Ended, self_measured: bool = False) -> RenderableType:
    """For a person, on stderr."""
    rows = round_rows(ended.summaries, round_seconds(run))
    final = final_row(run)
    table = round_table([*rows, final] if final else rows, measure=measure_name(run.manifest.config))
    gained = gain(run)
    on_test = gained if gained is not None and gained.split == "test" else None
    # What it could not learn from is the error that follows.
    nothing = f"nothing to learn in round {len(ended.summaries)}" if ended.nothing_to_learn else None
    lines = [f"ended: {nothing or ended.why}"]
    if on_test is not None:
        what = "change in the model's own judgement (self-measured)" if self_measured else "gain"
        lines.append(
            f"{what} on {count(on_test.change.n, 'test task')}, paired: {with_interval(on_test.change)} "
            f"(test split measured {count(run.test_reads(), 'time')})"
        )
    made = _made_of(on_test) if on_test is not None else []
    tail: list[str] = [*revised_lines(told), *critic_lines(told)] if (told := revised(run.final)) else []
    if shown := examples(run):
        tail += ["test answers, start and end:", *shown]
    tail += _ways_on(run, ended)
    parts = part_table(run)
    tables = [table] if parts is None else [table, parts]
    return Group(*tables, *map(_line, lines), *made, *map(_line, tail))


def _line(said: str) -> RenderableType:
    return text(said, newlines=True)


def _made_of(found: Gain) -> list[RenderableType]:
    """A mean over all tasks hides that one kind of them is not learnt."""
    told = [("flipped", flipped(found.flips, "test task"))]
    return [facts([*told, *tag_gains(found.by_tag)])]


def nothing_done(run: Run, ended: Ended) -> RenderableType:
    """The end of a command that found nothing to do: all of it was told before."""
    said = f"nothing to do: {ended.why}; the run is as it was"
    return Group(*map(_line, [said, *_ways_on(run, ended)[-1:]]))


def _ways_on(run: Run, ended: Ended) -> list[str]:
    """Where the run is, and what to type next."""
    own, lines = stored(run.manifest.config), []
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
    return [*lines, f"next: selfrefine runs show {run.called}{extend}"]


def summary(run: Run, ended: Ended) -> dict[str, Any]:
    """The same as one object, for --summary-json."""
    gained = gain(run)
    return {
        "stage": "cycle",
        "run": str(run.path),
        "why": ended.why,
        "nothing_to_learn": ended.nothing_to_learn,
        "rounds": msgspec.to_builtins(ended.summaries),
        "accepted_round": ended.summaries[-1].accepted_round if ended.summaries else 0,
        "test": msgspec.to_builtins(ended.final) if ended.final else None,
        "test_gain": msgspec.to_builtins(gained.change) if gained and gained.split == "test" else None,
        "gain": msgspec.to_builtins(gained) if gained else None,
        "revised": msgspec.to_builtins(revised(run.final)),
    }
