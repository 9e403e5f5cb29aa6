"""`selfrefine runs`: make, list, show and verify run folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfrefine.cli import common, complete
from selfrefine.cli.common import ConfigOption, JsonOption, ModelOption, RecipeOption, SeedOption, SetOption
from selfrefine.cli.guard import say
from selfrefine.cli.help import App

if TYPE_CHECKING:
    from selfrefine.runfolder.round import RoundDir

app = App(help="Make, list, show and verify run folders.")


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The run's name.")],
    config: ConfigOption = None,
    recipe: RecipeOption = None,
    model: ModelOption = None,
    seed: SeedOption = None,
    set_: SetOption = None,
) -> None:
    """Make a run folder: settings, splits and templates are frozen, and nothing is computed yet.

    \b
      selfrefine runs new mine --config demo
    """
    from selfrefine.cli.open_run import create_run, run_path
    from selfrefine.errors import EngineError
    from selfrefine.runfolder.run import check_free

    check_free(run_path(name))
    resolved = common.settings(config, set_, common.flags(model=model, seed=seed, recipe=recipe))
    with common.reporting() as reporter:
        session = common.session(resolved, reporter, trust=False)
        run = create_run(name, resolved, session)
    begin = f"selfrefine generate --run {run.called}"
    try:
        session.engine.trainer()
        ways = f"selfrefine cycle --run {run.called}, or stage by stage: {begin}"
    except EngineError:  # it can answer and be scored, not learn
        ways = begin
    say(f"made {run.path}; next: {ways}")


@app.command("ls")
def ls(json_: JsonOption = False) -> None:
    """List the runs in ./runs: rounds, the round that was kept, its gate score, test gain and state.

    States: new; running (locked by a process); by hand (the last command was one stage); interrupted (the
    same command continues it); failed, with exit code and reason; ended, with the reason; damaged, with what
    is wrong.

    \b
      selfrefine runs ls
    """
    from selfrefine.report.tables import runs_table
    from selfrefine.runfolder.audit import line, list_runs

    found = list_runs(common.RUNS_DIR)
    if json_ or not common.on_terminal():
        for info in found:
            common.print_json(line(info))
        return
    common.show(runs_table(found))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A run's name or folder.", autocompletion=complete.runs)],
    json_: JsonOption = False,
) -> None:
    """Show a run's settings, what each round measured and decided, and the gain on test tasks.

    \b
      selfrefine runs show demo
    """
    from selfrefine.report.ending import final_row, round_seconds, test_gain
    from selfrefine.report.tables import run_view
    from selfrefine.runfolder.audit import glance
    from selfrefine.runfolder.run import Run, locate

    run = Run.open(locate(common.RUNS_DIR, name))
    summaries = [folder.summary() for folder in run.rounds()]
    if (damage := glance(run, summaries)) is not None:
        say(damage)
    gain = test_gain(run)
    if json_:
        told = {"manifest": run.manifest, "rounds": summaries, "final": final_row(run), "test_gain": gain}
        common.print_json(told)
        return
    stages = {folder.index: _stage_lines(folder) for folder in run.rounds()}
    common.show(run_view(run.manifest, summaries, round_seconds(run), final_row(run), stages, gain))


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


@app.command("verify")
def verify(
    name: Annotated[str, typer.Argument(help="A run's name or folder.", autocompletion=complete.runs)],
) -> None:
    """Check hashes, rows, splits and policies of a run; exit 5 when something is wrong.

    \b
      selfrefine runs verify demo
    """
    from selfrefine.errors import RunFolderError
    from selfrefine.runfolder.audit import in_progress, renewed
    from selfrefine.runfolder.audit import verify as check
    from selfrefine.runfolder.run import Run, locate
    from selfrefine.words import count

    run = Run.open(locate(common.RUNS_DIR, name))
    for path in in_progress(run):
        say(f"in progress: {path}")
    if run.plan():
        say("plan.json: memory ran out in this run, so a repeat may differ in the last digits")
    problems = check(run)
    if (note := renewed(run)) is not None:
        say(note)
    if problems:
        raise RunFolderError("\n".join(problems))
    rounds = count(max(0, run.next_round() - 1), "committed round")
    say(f"verify: {run.path} is whole: {rounds}")
