"""`selfrefine select`: scored answers in, those worth learning from out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from selfrefine.cli import common
from selfrefine.cli.common import DriftOption, Input, JsonOption, Output, RunOption, SetOption, SummaryOption

StrategyOption = Annotated[
    str | None,
    typer.Option(
        "--select", metavar="NAME", help="best-of-n, threshold, all, pairs, labels, groups. [best-of-n]"
    ),
]
MinRewardOption = Annotated[float | None, typer.Option(help="Take rows of at least this reward.")]
MaxPerPromptOption = Annotated[int | None, typer.Option(help="At most this many a prompt. [1 for best-of-n]")]
LearnOption = Annotated[
    str | None, typer.Option("--learn", help="answers, revisions, critiques or both turns. [answers]")
]
DedupeOption = Annotated[bool | None, typer.Option(help="Equal answers to a prompt count once. [on]")]


def select_flags(
    strategy: str | None,
    min_reward: float | None,
    max_per_prompt: int | None,
    learn: str | None = None,
    dedupe: bool | None = None,
) -> dict[str, Any]:
    return common.flags(
        select__strategy=strategy,
        select__min_reward=min_reward,
        select__max_per_prompt=max_per_prompt,
        select__learn=learn,
        select__dedupe=dedupe,
    )


def command(
    ctx: typer.Context,
    source: Input = "-",
    output: Output = "-",
    run: RunOption = None,
    strategy: StrategyOption = None,
    min_reward: MinRewardOption = None,
    max_per_prompt: MaxPerPromptOption = None,
    learn: LearnOption = None,
    dedupe: DedupeOption = None,
    set_: SetOption = None,
    summary_json: SummaryOption = None,
    allow_drift: DriftOption = False,
    json_: JsonOption = False,
) -> None:
    """Choose what to learn from, and count what falls out and why.

    best-of-n takes what lies above its group's minimum, or reaches --min-reward. Unscored rows never get
    through, truncated ones only with the groups of a policy gradient. Each row says what it teaches.

    \b
      selfrefine select scored.jsonl --min-reward 1 --max-per-prompt 2 > chosen.jsonl
      selfrefine select scored.jsonl --select pairs --set select.margin=0.2 > pairs.jsonl
    """
    given = select_flags(strategy, min_reward, max_per_prompt, learn, dedupe)
    if run is not None:
        from selfrefine.cli.by_hand import one_stage

        one_stage(run, "select", given, set_, summary_json, allow_drift=allow_drift)
        return
    common.need_input(ctx, source, run)
    from selfrefine.cli.stream import filter_units, read_samples
    from selfrefine.errors import NothingToLearnError
    from selfrefine.report.words import summary_line
    from selfrefine.steps.select import select, why_nothing

    resolved = common.settings(None, set_, given)
    chosen = select(list(read_samples(source)), resolved.config.select)
    with common.watching() as watch, watch.stage("select", None) as bar:
        if chosen.rows:
            filter_units([chosen.rows], list, output, watch, as_json=json_)
        summary = {"stage": "select", **chosen.counts}
        bar.finish(summary_line(summary))
    common.write_summary(summary_json, summary)
    if not chosen.rows:
        raise NothingToLearnError(why_nothing(chosen.counts))
