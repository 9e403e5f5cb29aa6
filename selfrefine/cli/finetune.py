"""`selfrefine finetune`: scored answers in, a LoRA adapter out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfrefine.cli.help import OUTPUT
from selfrefine.cli.select import CHOOSING, check
from selfrefine.cli.verb import Asked, Flag, Verb

if TYPE_CHECKING:
    from selfrefine.records import Sample
    from selfrefine.stages.session import RunSession

ONLY_IN_RUNS = {
    "train.replay": "a filter has no earlier rounds",
    "train.checkpoint_steps": "a filter keeps no checkpoints",
    "objective.reference": "in a filter it is --adapter, or the bare model",
}
"""Settings of `finetune` that need a run, to what holds without one."""

CHOSEN_BEFORE = ("select.min_reward", "select.max_per_prompt", "select.learn", "select.band", "select.margin")
"""Flags that rows which `select` has chosen already cannot follow any more."""


def _filter(asked: Asked) -> dict[str, Any]:
    from selfrefine.cli.common import table
    from selfrefine.report.words import summary_line
    from selfrefine.stages.finetune import Finetune, FolderPlace
    from selfrefine.steps.finetune import Policies, check_fit

    config, reporter, out = asked.settings.config, asked.reporter, Path(asked.output or "adapter")
    reporter.stop.way_on = "no adapter was written"
    reporter.stop.at_once = True  # without checkpoints no step is worth finishing
    _check(asked, out)
    rows, selection = _chosen(asked)
    reporter.check()
    adapter = Path(config.adapter) if config.adapter else None
    policies = Policies(
        start=adapter if config.train.start == "adapter" else None, sampler=adapter, reference=adapter
    )
    check_fit(rows, config.objective)
    stage = Finetune(asked.session)

    def ring(alarms: Any) -> None:
        for one in alarms:
            reporter.say(f"{stage.title} {one.reason}")

    def begin() -> None:
        reporter.stop.at_once = False
        reporter.check()

    place = FolderPlace(out, reporter.say, begin)
    with reporter.stage(stage.title, None) as bar:
        found, note = stage.make(rows, place, policies, bar, ring)
        summary = table("finetune", found)
        summary |= {**summary.pop("dropped"), "adapter": str(out)}
        bar.finish(summary_line(summary))
    if note:
        reporter.say(note)
    return summary | {"selection": selection}


def _check(asked: Asked, out: Path) -> None:
    from selfrefine.errors import RunFolderError, UsageError
    from selfrefine.stages.settings import teacher_template

    config, origins = asked.settings.config, asked.settings.origins
    teacher_template(config)
    vain = [key for key in ONLY_IN_RUNS if origins[key] == "flag"]
    if vain:
        raise UsageError(f"--set {vain[0]} needs --run: {ONLY_IN_RUNS[vain[0]]}")
    if out.exists():
        raise RunFolderError(f"{out} already exists: choose another -o, or delete it")
    if config.train.start == "adapter" and config.adapter is None:
        raise UsageError("--start adapter continues an adapter: name it with --adapter")


def _chosen(asked: Asked) -> tuple[list[Sample], dict[str, int]]:
    """The rows to learn from, and the counts of their selection."""
    from msgspec import UNSET

    from selfrefine.cli.stream import NoRows, read_lessons
    from selfrefine.errors import NothingToLearnError, UsageError
    from selfrefine.objectives.fit import check_rows
    from selfrefine.report.words import summary_line
    from selfrefine.steps.select import select
    from selfrefine.steps.select_nothing import why_nothing

    try:
        rows = list(read_lessons(asked.source, asked.reporter.say))
    except NoRows:
        if asked.source == "-":  # the ordinary end of a pipe whose filter let nothing through
            raise NothingToLearnError("stdin is empty: no row came through the pipe") from None
        raise
    if all(row.lesson is not UNSET for row in rows):
        # `select` has chosen already, and a second selection would throw out what a pair rejects.
        again = [key for key in CHOSEN_BEFORE if asked.settings.origins[key] == "flag"]
        if again:
            raise UsageError(
                f"these rows are already selected, so {again[0]} has no effect: set it in `select`"
            )
        counts = {"samples": len(rows), "selected": len(rows)}
        asked.reporter.say(summary_line({"stage": "select", **counts}))
        return rows, counts
    config = asked.settings.config
    check_rows(config.objective.name, config.select)
    chosen = select(rows, config.select)
    asked.reporter.say(summary_line({"stage": "select", **chosen.counts}))
    if not chosen.rows:
        raise NothingToLearnError(why_nothing(rows, config.select, chosen.counts))
    return chosen.rows, chosen.counts


def _in_run(session: RunSession, k: int) -> dict[str, Any]:
    from selfrefine.stages.cycle import select
    from selfrefine.stages.finetune import finetune_round

    select(session, k)
    finetune_round(session, k)
    return {"adapter": str(session.run.round(k).adapter)}


VERB = Verb(
    name="finetune",
    about="""Train a LoRA adapter on the good answers, which are selected first (see `selfrefine select`).

    The loss covers the answer and the token that ends it, not the prompt. The folder has peft's format; its
    train.jsonl has one row per optimizer step. LoRA rank and other settings: --set train.lora.r=8.

    \b
      selfrefine finetune in.jsonl --min-reward 1 --max-per-prompt 2 -o adapter
    """,
    flags=(
        *CHOOSING,
        Flag(
            "objective.name",
            "Loss to minimise, from `selfrefine objectives ls`. Its settings: --set objective.KEY=… [sft]",
            ("--objective",),
        ),
        Flag("train.lr", "Peak learning rate. [the objective's]"),
        Flag("train.epochs"),
        Flag("train.batch_size"),
        Flag("train.start", "Start from base (a fresh adapter) or adapter (continue --adapter). [base]"),
    ),
    filter=_filter,
    check=check,
    in_run=_in_run,
    output=Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="Write the adapter to this folder. [adapter]",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ],
    output_default="adapter",
    json=False,
)
