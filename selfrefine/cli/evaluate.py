"""`selfrefine evaluate`: a policy's score on tasks, with an interval. Alone, or on a run's held-out split."""

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
    RunOption,
    SeedOption,
    SetOption,
    SummaryOption,
    TrustOption,
)


def command(
    ctx: typer.Context,
    source: Input = "-",
    output: Annotated[str | None, typer.Option("-o", "--output", help="The scored answers.")] = None,
    run: RunOption = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "-m", "--measure", "-r", metavar="NAME[:W]", help="The reward that measures. Repeatable."
        ),
    ] = None,
    n: Annotated[int | None, typer.Option("-n", help="Samples per task. [1]")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy. [0]")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer. [128]")] = None,
    system: Annotated[str | None, typer.Option(help="System message for prompts without one.")] = None,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    seed: SeedOption = None,
    set_: SetOption = None,
    summary_json: SummaryOption = None,
    allow_drift: DriftOption = False,
    trust_remote_code: TrustOption = False,
    json_: JsonOption = False,
) -> None:
    """Measure a policy on tasks: mean with a 95 % interval, greedy by default.

    With --run: the candidate of the first uncommitted round on the run's gate tasks.

    \b
      selfrefine tasks gym:chain_sum --seed 1 -n 200 | selfrefine evaluate -m gym --adapter adapter
    """
    given = common.flags(
        model=model,
        adapter=adapter,
        seed=seed,
        evaluate__measure=measure,
        evaluate__n=n,
        evaluate__temperature=temperature,
        evaluate__max_new_tokens=max_new_tokens,
        generate__system=system,
    )
    if run is not None:
        from selfrefine.cli.by_hand import one_stage

        one_stage(
            run, "evaluate", given, set_, summary_json, allow_drift=allow_drift, trust=trust_remote_code
        )
        return
    common.need_input(ctx, source, run)
    resolved = common.settings(None, set_, given)
    with common.watching() as watch:
        summary = _measure(resolved, source, output, watch, trust=trust_remote_code, as_json=json_)
    common.write_summary(summary_json, summary)


def _measure(
    resolved: Any, source: str, output: str | None, watch: common.ConsoleWatch, *, trust: bool, as_json: bool
) -> dict[str, Any]:
    import msgspec

    from selfrefine.cli.stream import filter_units
    from selfrefine.errors import UsageError
    from selfrefine.records import Sample
    from selfrefine.report.words import with_interval
    from selfrefine.runfolder.jsonl import open_input
    from selfrefine.stages.watch import show_completions
    from selfrefine.stages.work import build_rewards, check_measure, evaluate_settings
    from selfrefine.stats import interval
    from selfrefine.steps.evaluate import evaluate, per_task
    from selfrefine.steps.generate import task_units
    from selfrefine.steps.reward import Tally, require_some_scored
    from selfrefine.tasks import load
    from selfrefine.tasks.base import TaskOptions

    config = resolved.config
    if not config.evaluate.measure:
        raise UsageError("say what measures: -m numeric, -m gym, …")
    check_measure(config.evaluate.measure)
    settings = evaluate_settings(config)
    values: dict[str, float | None] = {}
    with open_input(source if source == "-" else "/dev/null") as stream:
        tasks = list(load(source, TaskOptions(), stream))
        engine = common.engine_for(resolved, trust=trust)
        scorers = build_rewards(config, config.evaluate.measure, engine)
        tally = Tally(scorers)
        with watch.stage("evaluate", len(tasks) * settings.n) as bar:

            def work(unit: Any) -> list[Sample]:
                rows = evaluate(
                    unit,
                    engine,
                    settings,
                    scorers,
                    config.seed,
                    stage="evaluate",
                    on_rows=lambda batch: show_completions(bar, batch),
                )
                values.update(per_task(rows))
                tally.add(rows)
                return rows

            units = task_units(tasks, settings, engine.unit_tokens)
            filter_units(
                units,
                work,
                output or "/dev/null",
                watch,
                as_json=as_json,
                require=lambda: require_some_scored(tally.result()),
            )
            found = interval(list(values.values()), seed=config.seed)
            bar.finish(f"evaluate: {with_interval(found)} on {found.n} tasks, {found.unscored} unscored")
    summary = {
        "stage": "evaluate",
        "policy": engine.policy,
        **msgspec.to_builtins(found),
        "rewards": tally.result(),
    }
    if output is None and (as_json or not common.on_terminal()):  # on a terminal the line above says it
        common.print_json(summary)
    return summary
