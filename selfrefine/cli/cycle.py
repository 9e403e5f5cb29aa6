"""`selfrefine cycle`: the five verbs in rounds, measured on held-out tasks, kept or rolled back."""

from __future__ import annotations

import sys
from itertools import count
from typing import Annotated, Any

import typer

from selfrefine.cli import checks, common, complete
from selfrefine.cli.common import (
    BaseUrlOption,
    ConfigOption,
    DriftOption,
    ModelOption,
    RecipeOption,
    SeedOption,
    SetOption,
    SummaryOption,
    TrustOption,
)
from selfrefine.cli.help import OUTPUT, RUN

Name = Annotated[
    str | None, common.run_option("Name or folder of the run: continued if it exists, made if not.")
]
Tasks = Annotated[
    str | None,
    typer.Option(
        "--tasks",
        metavar="SOURCE",
        help="Where the tasks come from: a file, or KIND:NAME.",
        autocompletion=complete.sources,
    ),
]
Rewards = Annotated[
    list[str] | None,
    typer.Option(
        "-r",
        "--reward",
        metavar="NAME[:W]",
        help="Train on this reward. Repeatable.",
        autocompletion=complete.kinds("reward"),
    ),
]
Measures = Annotated[
    list[str] | None,
    typer.Option(
        "--measure",
        metavar="NAME",
        help="Measure by this reward. [those trained on]",
        autocompletion=complete.kinds("reward"),
    ),
]
Rounds = Annotated[int | None, typer.Option(help="Stop after this many rounds. [3]")]
Until = Annotated[
    float | None, typer.Option(help="Stop when the mean reward on the gate tasks reaches this.")
]
MaxMinutes = Annotated[float | None, typer.Option(help="Start no new round after this many minutes.")]
Samples = Annotated[int | None, typer.Option("-n", help="Samples per prompt. [8]")]
Gate = Annotated[
    str | None,
    typer.Option(
        "--gate",
        metavar="NAME",
        help="How strict the gate is: strict, significant, or off (keep every round). [significant]",
        autocompletion=complete.values("gate.mode"),
    ),
]
Critique = Annotated[
    int | None, typer.Option("--critique", help="Critique and revise each answer this often. [0]")
]
Plan = Annotated[
    str | None,
    typer.Option(
        "--plan",
        metavar="NAME",
        help="What to make of its own failures before each round: auto, suggest, or off. [off]",
        autocompletion=complete.values("reflect.plan"),
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print the plan, and neither load a model nor write a file.", rich_help_panel=OUTPUT
    ),
]
Require = Annotated[
    bool,
    typer.Option(
        "--require-improvement", help="Exit with code 9 if no round is kept.", rich_help_panel=OUTPUT
    ),
]
OrNew = Annotated[
    bool,
    typer.Option(
        "--or-new", help="If the settings differ from the run's, start NAME-2.", rich_help_panel=RUN
    ),
]


def command(
    run: Name = None,
    config: ConfigOption = None,
    recipe: RecipeOption = None,
    tasks: Tasks = None,
    reward: Rewards = None,
    measure: Measures = None,
    rounds: Rounds = None,
    until: Until = None,
    max_minutes: MaxMinutes = None,
    n: Samples = None,
    gate: Gate = None,
    critique: Critique = None,
    plan: Plan = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    seed: SeedOption = None,
    set_: SetOption = None,
    dry_run: DryRun = False,
    require_improvement: Require = False,
    or_new: OrNew = False,
    summary_json: SummaryOption = None,
    allow_drift: DriftOption = False,
    trust_remote_code: TrustOption = False,
) -> None:
    """Run the whole loop: generate, critique, reward, select, finetune, measure, decide.

    A run can be killed at any time; the same command continues it. A higher --rounds extends a finished run.

    \b
      selfrefine cycle --config demo --run demo
      selfrefine cycle --tasks gym:chain_sum -r gym --rounds 3 --run sums
      selfrefine cycle --recipe grpo --config demo --run demo-grpo
      selfrefine cycle --config demo --run planned --plan auto
    """
    given = common.flags(
        model=model,
        engine__base_url=base_url,
        seed=seed,
        recipe=recipe,
        tasks__source=tasks,
        reward__use=reward,
        evaluate__measure=measure,
        cycle__rounds=rounds,
        cycle__until=until,
        cycle__max_minutes=max_minutes,
        generate__n=n,
        critique__passes=critique,
        gate__mode=gate,
        reflect__plan=plan,
    )
    checks.outputs(summary_json)
    if dry_run:
        _preview(run, config, set_, given, drift=allow_drift)
        return
    with common.reporting("cycle") as reporter:
        summary = loop(
            run, config, set_, given, reporter, or_new=or_new, drift=allow_drift, trust=trust_remote_code
        )
    common.write_summary(summary_json, "cycle", summary)
    _refuse(summary, require_improvement)


def _preview(
    name: str | None, config: str | None, sets: list[str] | None, given: dict[str, Any], *, drift: bool
) -> None:
    """The plan of a new run, or of the run of that name with its own settings and tasks."""
    from selfrefine.cli import open_run
    from selfrefine.report.dry_run import plan
    from selfrefine.runfolder.jsonl import write_stdout
    from selfrefine.runfolder.run import Run

    path = open_run.run_path(name) if name else None
    old = Run.open(path) if path and path.exists() else None
    asked = common.settings(config, sets, given, run=old.manifest.config if old else None)
    if old:
        open_run.check_settings(old, asked, allow_drift=drift)
    else:
        checks.run(asked.config)
    splits = {split: old.tasks(split) for split in ("train", "gate", "test")} if old else None
    write_stdout(plan(asked.config, splits).encode())


def _refuse(summary: dict[str, Any], require_improvement: bool) -> None:
    """Exit codes 8 and 9, once the summary is written. Raises: NothingToLearnError, GateNotMetError."""
    from selfrefine.errors import GateNotMetError, NothingToLearnError

    if summary["nothing_to_learn"]:
        raise NothingToLearnError(summary["nothing_to_learn"])
    if require_improvement and not summary["accepted_round"]:
        raise GateNotMetError("no round was kept: no candidate measured better than the starting policy")


def loop(
    name: str | None,
    config: str | None,
    sets: list[str] | None,
    given: dict[str, Any],
    reporter: common.ConsoleReporter,
    *,
    or_new: bool,
    drift: bool,
    trust: bool,
) -> dict[str, Any]:
    """Make the run or go on with it, until one of its ends; returns the summary of its end."""
    from selfrefine.cli import open_run
    from selfrefine.report.ending import ending, nothing_done, summary
    from selfrefine.runfolder.manifest import redacted
    from selfrefine.runfolder.run import Run, new_name
    from selfrefine.stages.cycle import cycle

    first = path = open_run.run_path(name or new_name(common.RUNS_DIR))
    for number in count(2):
        old = Run.open(path) if path.exists() else None
        # What is not said again stays as the run has it: `selfrefine cycle --run demo` alone continues.
        resolved = common.resolved(config, sets, given, run=old.manifest.config if old else None)
        asked = common.session(resolved, reporter, trust=trust)
        if not (old and or_new and open_run.differs(old, resolved, asked)):
            break
        path = first.with_name(f"{first.name}-{number}")
    for note in resolved.notes:
        reporter.say(note)
    if path != first:
        reporter.say(f"{first} was made with other settings or versions")
    if old:
        old.check_whole()
        open_run.check_settings(old, resolved, allow_drift=drift)
    else:
        checks.run(resolved.config)
    trains = resolved.config.cycle.rounds > 0
    if old and trains:
        asked.engine.trainer()  # refused now, not when the next round is to learn
    run = old or open_run.create_run(str(path), resolved, asked, trains=trains)
    if name is None:  # the same command again would make another run
        reporter.stop.way_on = f"continue with: selfrefine cycle --run {run.called}"
    reporter.say(f"{'continuing' if old else 'new run'} {run.path}")
    with run.lock():
        session = common.run_session(run, resolved, reporter, asked)
        if old:
            open_run.come_back(session, resolved, allow_drift=drift)  # refused, it leaves the run as it was
        with open_run.recorded(run):
            run.events.append("cycle", continued=old is not None, argv=redacted(sys.argv))
            session.follow_budgets()
            before = run.next_round(), run.final_file.is_file() and run.test_reads()
            ended = cycle(session)
            run.events.append("end", why=ended.why)
    # Unwrapped: its commands are copied, and a line break within one would end it.
    idle = before == (run.next_round(), run.final_file.is_file() and run.test_reads())
    whole = idle and ended.nothing_to_learn is None
    view = nothing_done(run, ended) if whole else ending(run, ended, session.self_measured)
    reporter.console.print(view, soft_wrap=True)
    told: dict[str, Any] = summary(run, ended)
    return told
