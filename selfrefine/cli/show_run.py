"""What `selfrefine runs show` shows: a run at a glance, all its figures, or one task through its rounds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfrefine.cli import common
from selfrefine.cli.guard import say
from selfrefine.errors import UsageError

if TYPE_CHECKING:
    from selfrefine.runfolder.round import RoundDir
    from selfrefine.runfolder.run import Run


def show_run(run: Run, *, everything: bool, json_: bool) -> None:
    """The overview, or with `everything` the long tables. Raises: RunFolderError."""
    from selfrefine.reflection.overview import overview

    seen = overview(run)
    if json_:
        common.print_json(_told(run, seen))
        return
    if everything:
        for sentence in seen.damage:
            say(sentence)
        _show_all(run)
        return
    from selfrefine.report.overview import overview_view

    common.show(overview_view(run.manifest, seen, run.called))


def _told(run: Run, seen: Any) -> dict[str, Any]:
    from selfrefine.report.tables import final_row

    return {
        "manifest": run.manifest,
        "rounds": seen.rounds,
        "final": final_row(run),
        "test_gain": seen.gain.change if seen.gain is not None and seen.gain.split == "test" else None,
        "state": seen.state,
        "seconds": seen.seconds,
        "learnt": seen.learnt,
        "tasks": seen.tasks,
        "gain": seen.gain,
        "diagnosis": seen.diagnosis,
        "alarms": seen.rang,
        "weaknesses": seen.weaknesses,
        "damage": seen.damage,
    }


def _show_all(run: Run) -> None:
    from selfrefine.reflection.overview import round_seconds, test_gain
    from selfrefine.report.tables import final_row, run_view

    summaries = [folder.summary() for folder in run.rounds()]
    stages = {folder.index: _stage_lines(folder) for folder in run.rounds()}
    view = run_view(run.manifest, summaries, round_seconds(run), final_row(run), stages, test_gain(run))
    common.show(view)


def _stage_lines(folder: RoundDir) -> list[str]:
    """What each stage of a round came to; of a round of 0.1, whose stages told nothing, its counts."""
    from selfrefine.report.words import stage_line, summary_line
    from selfrefine.runfolder.jsonl import read_json
    from selfrefine.runfolder.order import SHOWN
    from selfrefine.runfolder.round import ROUND_FILE, TRAINING_LOG

    def told(path: Path) -> dict[str, Any]:
        return read_json(path, dict[str, Any]) or {}

    lines = []
    names = {*folder.stages(), TRAINING_LOG, "reflect"}
    for name in (*SHOWN, *sorted(names - {*SHOWN})):
        if name in names and (path := folder.summary_file(name)).is_file():
            lines.append(stage_line(name, common.figures(told(path))))
    counts = told(folder.path / ROUND_FILE).get("counts")
    return [*lines, summary_line({"stage": "counts", **counts})] if counts else lines


def show_task(run: Run, wanted: str, json_: bool) -> None:
    """One task's answers in all rounds. Raises: UsageError where no task, or more than one, is meant."""
    from selfrefine.reflection.history import find_tasks, history

    found = find_tasks(run, wanted)
    if len(found) != 1:
        raise UsageError(_which(run, wanted, [task.id for _, task in found]))
    split, task = found[0]
    seen = history(run, split, task)
    if json_ or not common.on_terminal():
        for one in seen:
            common.print_json(one)
        return
    from selfrefine.report.one_task import task_history_view

    common.show(task_history_view(split, task, seen))


def _which(run: Run, wanted: str, ids: list[str]) -> str:
    if ids:
        shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
        return f"--task {wanted[:80]}: {len(ids):,} tasks of this run begin so: {shown}\ngive more of the id"
    # An id stands in the first column of every file of tasks.
    return (
        f"--task {wanted[:80]}: no task of this run has an id that begins so\n"
        f"the ids: jq -r .id {run.path}/tasks/gate.jsonl (or test.jsonl, train.jsonl)"
    )
