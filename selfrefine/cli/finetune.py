"""`selfrefine finetune`: scored answers in, a LoRA adapter out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from selfrefine.cli import common
from selfrefine.cli.common import (
    AdapterOption,
    DriftOption,
    Input,
    ModelOption,
    RunOption,
    SeedOption,
    SetOption,
    SummaryOption,
    TrustOption,
)
from selfrefine.cli.select import (
    LearnOption,
    MaxPerPromptOption,
    MinRewardOption,
    StrategyOption,
    select_flags,
)


def command(
    ctx: typer.Context,
    source: Input = "-",
    output: Annotated[str, typer.Option("-o", "--output", help="The adapter's folder.")] = "adapter",
    run: RunOption = None,
    strategy: StrategyOption = None,
    min_reward: MinRewardOption = None,
    max_per_prompt: MaxPerPromptOption = None,
    learn: LearnOption = None,
    objective: Annotated[
        str | None,
        typer.Option(help="A name of `selfrefine objectives ls`; its settings: --set objective.KEY=… [sft]"),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate. [the objective's]")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the chosen rows. [1]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Answers an optimizer step. [16]")] = None,
    start: Annotated[
        str | None, typer.Option(help="base: a fresh adapter; adapter: continue --adapter.")
    ] = None,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    seed: SeedOption = None,
    set_: SetOption = None,
    summary_json: SummaryOption = None,
    allow_drift: DriftOption = False,
    trust_remote_code: TrustOption = False,
) -> None:
    """A LoRA adapter learns from the good answers (selection first; see `selfrefine select`).

    The loss is on the answer only, its end included. The folder is peft's own format and holds train.jsonl,
    a row a step. LoRA rank and targets, token budget, warm-up and the rest: --set train.lora.r=8 …

    \b
      selfrefine finetune scored.jsonl --min-reward 1 --max-per-prompt 2 -o adapter
    """
    given = select_flags(strategy, min_reward, max_per_prompt, learn) | common.flags(
        model=model,
        adapter=adapter,
        seed=seed,
        objective__name=objective,
        train__lr=lr,
        train__epochs=epochs,
        train__batch_size=batch_size,
        train__start=start,
    )
    if run is not None:
        from selfrefine.cli.by_hand import one_stage

        one_stage(
            run, "finetune", given, set_, summary_json, allow_drift=allow_drift, trust=trust_remote_code
        )
        return
    common.need_input(ctx, source, run)
    resolved = common.settings(None, set_, given)
    with common.watching() as watch:
        watch.stop.way_on = "no adapter was written"
        summary = _train(resolved, source, Path(output), watch, trust=trust_remote_code)
    common.write_summary(summary_json, summary)


ONLY_IN_RUNS = {
    "train.replay": "a filter learns from the rows it is given",
    "train.checkpoint_steps": "a filter begins again",
    "objective.reference": "of a filter it is --adapter, or the bare model",
}
"""Settings of `finetune` that need a run, to what holds without one."""

CHOOSING = ("select.min_reward", "select.max_per_prompt", "select.learn", "select.band", "select.margin")
"""Flags that rows which `select` has chosen already cannot follow any more."""


def _train(
    resolved: Any, source: str, out: Path, watch: common.ConsoleWatch, *, trust: bool
) -> dict[str, Any]:
    from msgspec import UNSET

    from selfrefine.cli.stream import NoRows, read_samples
    from selfrefine.errors import NothingToLearnError, RunFolderError, UsageError
    from selfrefine.objectives.fit import check_rows
    from selfrefine.report.words import summary_line
    from selfrefine.runfolder.round import RoundDir
    from selfrefine.stages import alarms
    from selfrefine.steps.finetune import Policies, finetune, trainable
    from selfrefine.steps.select import Selection, select, why_nothing

    config = resolved.config
    vain = [key for key in ONLY_IN_RUNS if resolved.origins[key] == "flag"]
    if vain:
        raise UsageError(f"--set {vain[0]} means something in a run only (--run); {ONLY_IN_RUNS[vain[0]]}")
    if out.exists():
        raise RunFolderError(f"{out} is there already; choose another -o, or delete it")
    if config.train.start == "adapter" and config.adapter is None:
        raise UsageError("--start adapter continues an adapter: name it with --adapter")
    try:
        rows = list(read_samples(source))
    except NoRows:
        if source == "-":  # the ordinary end of a pipe whose filter let nothing through
            raise NothingToLearnError("stdin is empty: no row to learn from came through the pipe") from None
        raise
    if all(row.lesson is not UNSET for row in rows):
        # `select` has chosen already, and a second selection would throw out what a pair rejects.
        again = [key for key in CHOOSING if resolved.origins[key] == "flag"]
        if again:
            raise UsageError(f"these rows are selected already, so {again[0]} chooses nothing; select anew")
        chosen = Selection(rows=rows, counts={"samples": len(rows), "selected": len(rows)})
    else:
        check_rows(config.objective.name, config.select)
        chosen = select(rows, config.select)
    watch.say(summary_line({"stage": "select", **chosen.counts}))
    if not chosen.rows:
        raise NothingToLearnError(why_nothing(chosen.counts))
    adapter = Path(config.adapter) if config.adapter else None
    engine = trainable(common.engine_for(resolved, trust=trust))
    folder = RoundDir(out.resolve().parent)

    def keep(log: list[bytes], save: Any) -> None:
        def build(place: Path) -> None:
            save(place)
            (place / "train.jsonl").write_bytes(b"".join(line + b"\n" for line in log))

        folder.put_directory(out.name, build)

    def rescue(save: Any) -> None:
        kept = out.with_name(f"{out.name}.last-good")
        if kept.exists():
            shutil.rmtree(kept)
        folder.put_directory(kept.name, save)
        watch.say(f"the adapter as it was when its loss was last a number is in {kept}")

    with watch.stage("finetune", None) as bar:
        rung: set[str] = set()

        def on_step(row: Any, total: int) -> None:
            bar.total = total
            for one in alarms.of_step(row.step, row.grad_norm, row.metrics, config.alarms):
                if one.name not in rung:
                    watch.say(f"finetune {one.reason}")
                rung.add(one.name)
            bar.advance(rows=1, tokens=row.tokens, example=f"step {row.step} of {total}, loss {row.loss:.4f}")
            watch.check()

        trained = finetune(
            chosen.rows,
            engine,
            config.train,
            config.objective,
            config.seed,
            keep,
            policies=Policies(
                start=adapter if config.train.start == "adapter" else None, sampler=adapter, reference=adapter
            ),
            on_step=on_step,
            rescue=rescue,
        )
        summary = {
            "stage": "finetune",
            **trained.counts,
            **trained.dropped,
            "first_loss": trained.first_loss,
            "last_loss": trained.last_loss,
            "adapter": str(out),
        }
        bar.finish(summary_line(summary))
    if trained.note:
        watch.say(trained.note)
    return summary | {"selection": chosen.counts}
