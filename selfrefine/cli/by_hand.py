"""A verb with --run: one stage of the run's first uncommitted round, the same code that `cycle` calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfrefine.cli import common
from selfrefine.cli.open_run import come_back
from selfrefine.report.words import summary_line, with_interval
from selfrefine.runfolder.run import Run, locate
from selfrefine.stages import stages
from selfrefine.stages.work import Work, start


def one_stage(
    name: str,
    stage: str,
    given: Mapping[str, Any],
    sets: list[str] | None,
    summary_json: str | None,
    *,
    allow_drift: bool,
    trust: bool = False,
) -> dict[str, Any]:
    """Run `stage` in the run `name` and return its summary. Round 0 is measured first where it is missing."""
    run = Run.open(locate(common.RUNS_DIR, name))
    resolved = common.settings(None, sets, given, run=run.manifest.config)
    with common.watching() as watch, run.lock():
        watch.stop.way_on = "run the same command again to continue"
        engine = common.engine_for(resolved, trust=trust)
        come_back(run, resolved, engine, allow_drift=allow_drift)
        run.events.append("stage-command", stage=stage)
        work = start(run, resolved.config, engine, common.critic_for(resolved, trust=trust), watch)
        stages.baseline(work)
        summary = {"stage": stage, "round": run.next_round(), **STAGES[stage](work, run.next_round())}
    watch.say(summary_line(summary))
    common.write_summary(summary_json, summary)
    return summary


def _generate(work: Work, k: int) -> dict[str, Any]:
    from selfrefine.steps.generate import counts

    stages.generate(work, k)
    return dict(counts(work.run.round(k).samples("generate")))


def _critique(work: Work, k: int) -> dict[str, Any]:
    import msgspec

    from selfrefine.errors import ConfigError

    if not work.config.critique.passes:
        raise ConfigError("critique.passes of this run is 0, so its rewards would not read the critiques")
    stages.critique(work, k)
    return dict(msgspec.json.decode((work.run.round(k).path / "critique.json").read_bytes()))


def _reward(work: Work, k: int) -> dict[str, Any]:
    from selfrefine.steps.reward import summary

    stages.reward(work, k)
    return summary(work.run.round(k).samples("reward"), work.scorers)


def _select(work: Work, k: int) -> dict[str, Any]:
    return dict(stages.select(work, k))


def _finetune(work: Work, k: int) -> dict[str, Any]:
    stages.select(work, k)
    stages.finetune(work, k)
    return {"adapter": str(work.run.round(k).adapter)}


def _evaluate(work: Work, k: int) -> dict[str, Any]:
    folder = work.run.round(k)
    found = stages.measure(work, folder, "gate", folder.adapter, f"round {k}")
    return {"gate": with_interval(found), "n": found.n, "unscored": found.unscored}


def _gate(work: Work, k: int) -> dict[str, Any]:
    decision = stages.gate(work, k, stages.select(work, k)).gate
    assert decision is not None
    return {"outcome": decision.outcome, "accepted": decision.accepted, "reason": decision.reason}


def _final(work: Work, _k: int) -> dict[str, Any]:
    found = stages.final(work)
    return {"test": with_interval(found), "n": found.n, "unscored": found.unscored}


STAGES = {
    "generate": _generate,
    "critique": _critique,
    "reward": _reward,
    "select": _select,
    "finetune": _finetune,
    "evaluate": _evaluate,
    "gate": _gate,
    "final": _final,
}
