"""A verb with --run: the stage of the run's first uncommitted round, the same object that `cycle` runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from selfrefine.cli import common
from selfrefine.cli.open_run import check_settings, come_back, recorded
from selfrefine.errors import ConfigError
from selfrefine.report.words import summary_line
from selfrefine.runfolder.order import left_out, needs
from selfrefine.runfolder.round import called
from selfrefine.runfolder.run import Run, locate

if TYPE_CHECKING:
    from selfrefine.config import Config
    from selfrefine.runfolder.round import RoundDir
    from selfrefine.stages.session import RunSession


def require_before(verb: str, config: Config, folder: RoundDir) -> None:
    """What a verb reads must be there; looked at before a model is loaded. Raises: RunFolderError, and
    ConfigError for a reflection that would change nothing.
    """
    without = left_out(config)
    if verb == "reflect" and verb in without:
        raise ConfigError(
            "this run has reflect.plan = off, so its rounds follow no plan; to look at it: "
            f"selfrefine reflect {called(folder.path.parent)}"
        )
    wanted = needs(verb, without)
    if wanted is not None and not (verb == "finetune" and folder.has("selected")):
        folder.require(wanted, without)


def one_stage(
    name: str,
    verb: str,
    work: Callable[[RunSession, int], Any],
    given: Mapping[str, Any],
    sets: list[str] | None,
    summary_json: str | None,
    *,
    allow_drift: bool,
    trust: bool = False,
) -> dict[str, Any]:
    """Run `work` in the run `name` and return its summary. Round 0 is measured first where it is missing."""
    from selfrefine.stages.gate import baseline

    run = Run.open(locate(common.RUNS_DIR, name))
    run.check_whole()
    resolved = common.settings(None, sets, given, run=run.manifest.config)
    check_settings(run, resolved, allow_drift=allow_drift)
    require_before(verb, resolved.config, run.round(max(1, run.next_round())))
    with common.reporting(verb) as reporter, run.lock():
        reporter.stop.way_on = "run the same command again to continue"
        asked = common.session(resolved, reporter, trust=trust)
        session = common.run_session(run, resolved, reporter, asked)
        come_back(session, resolved, allow_drift=allow_drift)  # refused, it leaves the run as it was
        with recorded(run):
            run.events.append("stage-command", stage=verb)
            session.follow_budgets()
            baseline(session)
            k = run.next_round()
            told = {"stage": verb, "round": k, **common.figures(work(session, k))}
    line = summary_line({key: value for key, value in told.items() if key != "round"})
    reporter.say(line if verb == "final" else f"round {k} {line}")
    common.write_summary(summary_json, verb, told)
    return told
