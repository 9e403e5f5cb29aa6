"""`selfrefine generate`: tasks in, the model's answers out."""

from __future__ import annotations

import time
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
    TrustOption,
)


def command(
    ctx: typer.Context,
    source: Input = "-",
    output: Output = "-",
    run: RunOption = None,
    n: Annotated[int | None, typer.Option("-n", help="Samples per prompt. [8]")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy. [1.0]")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling; 1 is off. [1.0]")] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k most likely tokens; 0 is off. [0]")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer. [128]")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End an answer before this text. Repeatable.")
    ] = None,
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
    """The model answers: tasks (JSON Lines) in, one row per sampled answer out.

    Prompts are computed once for all their samples. A sample depends on seed, task id and index only.

    \b
      selfrefine tasks gym:chain_sum -n 16 | selfrefine generate -n 8 --max-new-tokens 24 > samples.jsonl
    """
    given = common.flags(
        model=model,
        adapter=adapter,
        seed=seed,
        generate__n=n,
        generate__temperature=temperature,
        generate__top_p=top_p,
        generate__top_k=top_k,
        generate__max_new_tokens=max_new_tokens,
        generate__stop=stop,
        generate__system=system,
    )
    if run is not None:
        from selfrefine.cli.by_hand import one_stage

        one_stage(
            run, "generate", given, set_, summary_json, allow_drift=allow_drift, trust=trust_remote_code
        )
        return
    common.need_input(ctx, source, run)
    resolved = common.settings(None, set_, given)
    with common.watching() as watch:
        summary = _filter(resolved, source, output, watch, trust=trust_remote_code, as_json=json_)
    common.write_summary(summary_json, summary)


def _filter(
    resolved: Any, source: str, output: str, watch: common.ConsoleWatch, *, trust: bool, as_json: bool
) -> dict[str, Any]:
    from selfrefine.cli.stream import filter_units
    from selfrefine.records import Sample, Task
    from selfrefine.report.words import summary_line
    from selfrefine.runfolder.jsonl import open_input
    from selfrefine.stages.watch import show_completions
    from selfrefine.stages.work import generate_settings
    from selfrefine.steps.generate import counts, generate, task_units
    from selfrefine.tasks import load
    from selfrefine.tasks.base import TaskOptions

    config = resolved.config
    settings = generate_settings(config)
    totals: dict[str, int] = {}
    with open_input(source if source == "-" else "/dev/null") as stream:
        tasks = load(source, TaskOptions(), stream)
        first = next(tasks)  # bad input is refused before a model is loaded
        engine = common.engine_for(resolved, trust=trust)

        def everything() -> Any:
            yield first
            yield from tasks

        with watch.stage("generate", None) as bar:
            began = time.monotonic()

            def work(unit: Any) -> list[Sample]:
                rows = generate(
                    list[Task](unit),
                    engine,
                    settings,
                    config.seed,
                    on_rows=lambda batch: show_completions(bar, batch),
                )
                for key, value in counts(rows).items():
                    totals[key] = totals.get(key, 0) + value
                return rows

            units = task_units(everything(), settings, engine.unit_tokens)
            filter_units(units, work, output, watch, as_json=as_json)
            seconds = time.monotonic() - began
            summary = {
                "stage": "generate",
                **totals,
                "tokens_per_s": round(totals.get("tokens", 0) / max(seconds, 1e-9), 1),
            }
            bar.finish(summary_line(summary))
    return summary
