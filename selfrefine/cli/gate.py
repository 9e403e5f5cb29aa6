"""`selfrefine gate`: decide on the candidate of a run made by hand, and commit its round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfrefine.cli.common import DriftOption, SetOption, SummaryOption, run_option

if TYPE_CHECKING:
    from selfrefine.stages.session import RunSession


def command(
    run: Annotated[str, run_option("Name or folder of the run.")],
    final: Annotated[
        bool,
        typer.Option("--final", help="Measure the accepted policy on the test tasks, and decide nothing."),
    ] = False,
    require_improvement: Annotated[
        bool, typer.Option("--require-improvement", help="Exit with code 9 unless the candidate is kept.")
    ] = False,
    set_: SetOption = None,
    summary_json: SummaryOption = None,
    allow_drift: DriftOption = False,
) -> None:
    """Measure a candidate on the gate tasks, decide whether to keep it, and commit the round.

    \b
      selfrefine gate --run mine
    """
    from selfrefine.cli.by_hand import one_stage
    from selfrefine.errors import GateNotMetError, UsageError

    if final and require_improvement:
        raise UsageError("--final decides nothing: leave out --require-improvement")
    name, work = ("final", _final) if final else ("gate", _gate)
    summary = one_stage(run, name, work, {}, set_, summary_json, allow_drift=allow_drift)
    if require_improvement and not summary["accepted"]:
        raise GateNotMetError(summary["reason"])


def _gate(session: RunSession, k: int) -> dict[str, Any]:
    from selfrefine.stages.gate import gate

    decision = gate(session, k).gate
    assert decision is not None
    return {"outcome": decision.outcome, "accepted": decision.accepted, "reason": decision.reason}


def _final(session: RunSession, k: int) -> dict[str, Any]:
    from selfrefine.report.words import with_interval
    from selfrefine.stages.gate import final

    found = final(session)
    return {"test": with_interval(found), "n": found.n, "unscored": found.unscored}
