"""`selfrefine runs`: make, list, show and verify run folders."""

from __future__ import annotations

from typing import Annotated

import typer

from selfrefine.cli import (
    common,
    runs_diff,
    runs_export,
    runs_rows,
    runs_sql,
    runs_tail,
    runs_tidy,
    runs_track,
)
from selfrefine.cli.common import (
    BaseUrlOption,
    ConfigOption,
    JsonOption,
    ModelOption,
    RecipeOption,
    SeedOption,
    SetOption,
)
from selfrefine.cli.guard import say
from selfrefine.cli.help import App
from selfrefine.cli.runs_rows import RunArgument

app = App(help="Make, list, show, query and tidy run folders.")


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The run's name.")],
    config: ConfigOption = None,
    recipe: RecipeOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
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
    given = common.flags(model=model, engine__base_url=base_url, seed=seed, recipe=recipe)
    resolved = common.settings(config, set_, given)
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
    name: RunArgument,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", metavar="ID", help="Show one task through all rounds. The beginning of its id will do."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show all settings, and all figures of each stage and guard.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Show a run on one screen, all of its figures, or one of its tasks through all rounds.

    \b
      selfrefine runs show demo
      selfrefine runs show demo --all
      selfrefine runs show demo --task 4d298fae
    """
    from selfrefine.cli.show_run import show_run, show_task
    from selfrefine.errors import UsageError
    from selfrefine.runfolder.run import Run, locate

    if task is not None and everything:
        raise UsageError("--task and --all show different things: give one of them")
    run = Run.open(locate(common.RUNS_DIR, name))
    if task is not None:
        show_task(run, task, json_)
    else:
        show_run(run, everything=everything, json_=json_)


@app.command("verify")
def verify(
    name: RunArgument,
) -> None:
    """Check hashes, rows, splits, policies and lineage of a run; exit 5 when something is wrong.

    \b
      selfrefine runs verify demo
    """
    from selfrefine.errors import RunFolderError
    from selfrefine.lineage.check import verify as check_lineage
    from selfrefine.runfolder.audit import in_progress, renewed
    from selfrefine.runfolder.audit import verify as check
    from selfrefine.runfolder.collected import collected
    from selfrefine.runfolder.run import Run, locate
    from selfrefine.words import count

    run = Run.open(locate(common.RUNS_DIR, name))
    for path in in_progress(run):
        say(f"in progress: {path}")
    if run.plan():
        say("plan.json: memory ran out in this run, so a repeat may differ in the last digits")
    problems = [*check(run), *check_lineage(run)]
    if gone := sum(not (run.path / name).is_file() for name in collected(run.path)):
        say(f"collected: {count(gone, 'file')} of rejected adapters, by `selfrefine runs gc`")
    if (note := renewed(run)) is not None:
        say(note)
    if problems:
        raise RunFolderError("\n".join(problems))
    rounds = count(max(0, run.next_round() - 1), "committed round")
    say(f"verify: {run.path} is whole: {rounds}")


app.command("rows")(runs_rows.rows)
app.command("sql")(runs_sql.sql)
app.command("export")(runs_export.export)
app.command("env")(runs_export.env)
app.command("rm")(runs_tidy.rm)
app.command("gc")(runs_tidy.gc)
app.command("diff")(runs_diff.diff)
app.command("tail")(runs_tail.tail)
app.command("track")(runs_track.track)
