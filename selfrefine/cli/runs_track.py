"""`selfrefine runs track`: a run's figures for the trackers that people know."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from selfrefine.cli import common
from selfrefine.cli.guard import say
from selfrefine.cli.runs_rows import RunArgument


class TrackerName(StrEnum):
    """As in `tracking.TRACKERS`, which would load the run folder's modules for a --help."""

    TENSORBOARD = "tensorboard"
    TRACKIO = "trackio"
    MLFLOW = "mlflow"
    WANDB = "wandb"


def track(
    name: RunArgument,
    to: Annotated[TrackerName, typer.Option("--to", help="The tracker to write for.")],
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the run has ended, or until Ctrl-C.")
    ] = False,
    folder: Annotated[
        str | None,
        typer.Option(
            "--dir", metavar="FOLDER", help="Where to write. [tracking/TRACKER]", show_default=False
        ),
    ] = None,
) -> None:
    """Write a run's figures as files of TensorBoard, Trackio, MLflow or Weights & Biases.

    It reads the run folder and never writes to it, so it works on finished runs, on a run that goes on in
    another terminal, and can be stopped or killed at any time. Given again, it writes this run anew: nothing
    is doubled. It sends nothing: with wandb, `wandb sync` does, when you call it.

    \b
      selfrefine runs track demo --to tensorboard
      selfrefine runs track demo --to mlflow --follow
    """
    import shlex

    from selfrefine.runfolder.run import Run, locate
    from selfrefine.tracking import TRACKERS
    from selfrefine.tracking.follow import track as hand_over
    from selfrefine.words import count

    run = Run.open(locate(common.RUNS_DIR, name))
    kind, place = TRACKERS[to.value], Path(folder or f"tracking/{to.value}")
    with common.reporting("track") as reporter:
        reporter.stop.way_on = "the same command writes the run anew and follows it"
        handed = hand_over(run, kind, place, follow, reporter.say, reporter.check)
    say(f"track: {count(handed, 'point')} of {run.called} in {place}")
    say(f"next: {kind.look.format(dir=shlex.quote(str(place)))}")
