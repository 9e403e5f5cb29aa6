"""`selfrefine critique`: answers in, the same rows with critiques and their revisions out."""

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
    TrustOption,
)


def command(
    ctx: typer.Context,
    source: Input = "-",
    output: Output = "-",
    run: RunOption = None,
    reward: Annotated[
        list[str] | None,
        typer.Option("-r", "--reward", metavar="NAME[:W]", help="Score drafts and revisions. Repeatable."),
    ] = None,
    passes: Annotated[int | None, typer.Option(help="Critique and revise this often, until ok. [1]")] = None,
    feedback: Annotated[
        str | None, typer.Option(help="rewards: the critic sees what the rewards found missing. [none]")
    ] = None,
    critic_model: Annotated[
        str | None, typer.Option(help="A bigger critic; the policy itself without.")
    ] = None,
    critique_prompt: Annotated[str | None, typer.Option(help="critique, rubric, or a template file.")] = None,
    revise_prompt: Annotated[str | None, typer.Option(help="revise, or a template file.")] = None,
    reveal_references: Annotated[
        bool | None, typer.Option("--reveal-references", help="The critic sees the references; marked.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest critique and revision. [128]")] = None,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    seed: SeedOption = None,
    set_: SetOption = None,
    summary_json: SummaryOption = None,
    allow_drift: DriftOption = False,
    trust_remote_code: TrustOption = False,
    json_: JsonOption = False,
) -> None:
    """The model criticises its answers and revises them; the summary says whether that helped.

    Right after revision stands beside right after fresh samples at the same token cost, and every pass counts
    wrong→right and right→wrong. Revisions are rows of their own (`parent_id`).

    \b
      selfrefine critique samples.jsonl -r coverage --feedback rewards > revised.jsonl
    """
    given = common.flags(
        model=model,
        adapter=adapter,
        seed=seed,
        reward__use=reward,
        critique__passes=passes,
        critique__feedback=feedback,
        critique__critic_model=critic_model,
        critique__critique_prompt=critique_prompt,
        critique__revise_prompt=revise_prompt,
        critique__reveal_references=reveal_references,
        critique__max_new_tokens=max_new_tokens,
        generate__max_new_tokens=max_new_tokens,
    )
    if run is not None:
        from selfrefine.cli.by_hand import one_stage

        one_stage(
            run, "critique", given, set_, summary_json, allow_drift=allow_drift, trust=trust_remote_code
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
    from itertools import chain

    from selfrefine.cli.stream import filter_units, read_samples
    from selfrefine.records import Sample
    from selfrefine.report.words import critique_line
    from selfrefine.stages.watch import show_rewards
    from selfrefine.stages.work import build_rewards, critique_settings, critique_templates
    from selfrefine.steps.critique import critique
    from selfrefine.steps.critique_outcome import Outcome, summary
    from selfrefine.steps.reward import score
    from selfrefine.steps.units import sample_units

    config = resolved.config
    templates, settings = critique_templates(config), critique_settings(config)
    rows = read_samples(source)
    first = next(rows)
    policy = common.engine_for(resolved, trust=trust)
    name = config.critique.critic_model  # here the verb itself says that there is critique, not `passes`
    critic = common.load(name, trust=trust) if name else policy
    scorers = build_rewards(config, config.reward.use, policy) if config.reward.use else ()
    total = Outcome()
    each = settings.passes * (settings.critique.max_new_tokens + settings.revision.max_new_tokens)
    with watch.stage("critique", None) as bar:

        def work(unit: Any) -> list[Sample]:
            nonlocal total
            own = config.reward
            rescore = (lambda some: score(some, scorers, own.gate_on, invert=own.invert)) if scorers else None
            result = critique(unit, policy, critic, templates, settings, config.seed, rescore)
            total += result.outcome
            show_rewards(bar, result.rows, rows=len(unit))
            return result.rows

        units = sample_units(chain([first], rows), each, policy.unit_tokens)
        filter_units(units, work, output, watch, as_json=as_json)
        told = {"stage": "critique", **summary(total)}
        bar.finish(critique_line(told))
    return told
