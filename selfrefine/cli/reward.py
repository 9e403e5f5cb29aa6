"""`selfrefine reward`: answers in, scored answers out. Loads no model unless a chosen reward needs one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from selfrefine.cli import common
from selfrefine.cli.common import (
    AdapterOption,
    DriftOption,
    Input,
    JsonOption,
    ModelOption,
    Output,
    RunOption,
    SeedOption,
    SetOption,
    SummaryOption,
)


def command(
    ctx: typer.Context,
    source: Input = "-",
    output: Output = "-",
    run: RunOption = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            "-r",
            "--reward",
            metavar="NAME[:WEIGHT]",
            help="A name of `selfrefine rewards ls`, or path/to/file.py:function. Repeatable.",
        ),
    ] = None,
    gate_on: Annotated[
        str | None, typer.Option(metavar="NAME", help="The others count only where this reward passes.")
    ] = None,
    selftest: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help='Rows with "label": good or bad; fails when good is not above bad.'
        ),
    ] = None,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    seed: SeedOption = None,
    set_: SetOption = None,
    summary_json: SummaryOption = None,
    allow_drift: DriftOption = False,
    json_: JsonOption = False,
) -> None:
    """Answers get scores: each in [0, 1], higher is better, null with a reason where there is none.

    \b
      selfrefine reward samples.jsonl -r numeric > scored.jsonl
      selfrefine reward samples.jsonl -r coverage -r sentence --gate-on coverage > scored.jsonl
      selfrefine reward --selftest known.jsonl -r my_reward.py:score
    """
    given = common.flags(model=model, adapter=adapter, seed=seed, reward__use=reward, reward__gate_on=gate_on)
    if run is not None:
        from selfrefine.cli.by_hand import one_stage

        one_stage(run, "reward", given, set_, summary_json, allow_drift=allow_drift)
        return
    resolved = common.settings(None, set_, given)
    if selftest is not None:
        _selftest(resolved, selftest)
        return
    common.need_input(ctx, source, run)
    with common.watching() as watch:
        summary = _filter(resolved, source, output, watch, as_json=json_)
    common.write_summary(summary_json, summary)


def _scorers(resolved: Any) -> Any:
    from selfrefine.stages.work import build_rewards
    from selfrefine.steps.reward import needs_engine, parse_spec

    config = resolved.config
    specs = [parse_spec(text) for text in config.reward.use]
    engine = common.engine_for(resolved) if needs_engine(specs) else None
    return build_rewards(config, config.reward.use, engine)


def _selftest(resolved: Any, path: str) -> None:
    import sys

    from selfrefine.errors import DataError
    from selfrefine.runfolder.jsonl import open_input
    from selfrefine.steps.reward import selftest, selftest_rows

    with open_input(path) as stream:
        rows = selftest_rows(stream, path)
    problems = selftest(rows, _scorers(resolved), resolved.config.reward.gate_on)
    if problems:
        raise DataError("the rewards fail their self-test:\n" + "\n".join(problems[:20]))
    sys.stderr.write(f"selftest: {len(rows)} rows, every good answer scores above every bad one\n")


def _filter(
    resolved: Any, source: str, output: str, watch: common.ConsoleWatch, *, as_json: bool
) -> dict[str, Any]:
    from itertools import chain

    from selfrefine.cli.stream import filter_units, read_samples
    from selfrefine.records import Sample
    from selfrefine.report.words import summary_line
    from selfrefine.stages.watch import show_rewards
    from selfrefine.steps.reward import Tally, require_some_scored, score
    from selfrefine.steps.units import sample_units

    rows = read_samples(source)
    first = next(rows)
    scorers = _scorers(resolved)
    tally = Tally(scorers)
    with watch.stage("reward", None) as bar:

        def work(unit: Any) -> list[Sample]:
            own = resolved.config.reward
            scored = score(unit, scorers, own.gate_on, invert=own.invert)
            tally.add(scored)
            show_rewards(bar, scored)
            return scored

        filter_units(
            sample_units(chain([first], rows)),
            work,
            output,
            watch,
            as_json=as_json,
            require=lambda: require_some_scored(tally.result()),
        )
        summary = {"stage": "reward", **tally.result()}
        bar.finish(summary_line(summary))
    return summary
