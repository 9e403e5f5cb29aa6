"""What a round may sample beyond its plan once its answers are scored: more prompts, and hints.

Both are stages with files of their own (resampled.jsonl, rationalised.jsonl). A stage's plan may not depend
on what is done, so the plan is everything that could be sampled, in fixed units, and each unit decides from
the committed rows before it, and from them only, whether it samples or stays empty: a resumed run decides
alike.
"""

from __future__ import annotations

from msgspec.structs import replace

from selfrefine import prompts, records
from selfrefine.records import Sample, Task, decode_sample
from selfrefine.runfolder.jsonl import lines
from selfrefine.seeds import derive
from selfrefine.stages.watch import show_completions, show_rewards
from selfrefine.stages.work import Work, generate_settings, right_mark, timed
from selfrefine.steps import generate as generate_step
from selfrefine.steps import rationalise as hints
from selfrefine.steps import select
from selfrefine.tasks.splits import draw


def resample(work: Work, k: int) -> None:
    """Further training prompts until `resample.groups` prompts have something to compare: resampled.jsonl.

    The budget counts what a unit may cost at most, so it is never exceeded.
    Source: Yu et al. 2025, "DAPO", section 3.2 (dynamic sampling).
    """
    folder, config, own = work.run.round(k), work.config, work.config.resample
    if not own.groups or folder.has("resampled"):
        return
    work.be(work.run.current_adapter)
    settings = generate_settings(config)
    limit = min(work.engine.unit_tokens, own.max_tokens)
    plan = list(generate_step.task_units(_others(work, k), settings, limit))
    so_far = list(folder.samples("reward"))
    part = folder.file("resampled").with_name("resampled.jsonl.part")
    resumed = False
    spent = 0

    def make(unit: list[Task]) -> list[bytes]:
        nonlocal resumed, spent
        if not resumed:  # whatever lies beyond the last committed batch has been cut off by now
            with part.open("rb") as stream:
                earlier = [decode_sample(line, where) for where, line in lines(stream, str(part))]
            so_far.extend(earlier)
            spent = sum(len(row.token_ids) for row in earlier)
            resumed = True
        most = len(unit) * settings.n * settings.max_new_tokens
        if teaching(so_far, work) >= own.groups or spent + most > own.max_tokens:
            return []
        rows = generate_step.generate(
            unit,
            work.engine,
            settings,
            config.seed,
            round_index=k,
            on_rows=lambda batch: show_completions(bar, batch),
        )
        scored = work.scored(rows)
        show_rewards(bar, scored, rows=0)
        so_far.extend(scored)
        spent += sum(len(row.token_ids) for row in scored)
        return [records.encode(row) for row in scored]

    with timed(work, k, "resample"), work.watch.stage(f"round {k} resample", None) as bar:
        folder.stage("resampled", plan, make, should_stop=work.watch.check)


def teaching(samples: list[Sample], work: Work) -> int:
    """Prompts of which the selection takes something."""
    return select.select(samples, work.config.select).counts.get("prompts_selected", 0)


def _others(work: Work, k: int) -> list[Task]:
    """The training tasks that round k does not draw, shuffled for it."""
    config = work.config
    train = work.run.tasks("train")
    drawn = {task.id for task in draw(train, k, config.cycle.prompts_per_round, config.seed)[0]}
    others = [task for task in train if task.id not in drawn]
    return sorted(others, key=lambda task: (derive(config.seed, "resample", k, task.id), task.id))


def rationalise(work: Work, k: int) -> None:
    """Answers, found with the reference as a hint, to what no sample got right: rationalised.jsonl."""
    folder, config = work.run.round(k), work.config
    if not config.rationalise.n or folder.has("rationalised"):
        return
    work.be(work.run.current_adapter)
    settings = replace(config.generate, n=config.rationalise.n)
    template = prompts.load(work.run.prompts_dir / "hint.md", "hint")
    tasks = hints.unsolved(list(folder.samples("reward")), right_mark(config))
    plan = list(generate_step.task_units(tasks, settings, work.engine.unit_tokens))
    total = len(tasks) * settings.n
    with timed(work, k, "rationalise"), work.watch.stage(f"round {k} rationalise", total) as bar:

        def make(unit: list[Task]) -> list[bytes]:
            rows = hints.rationalise(
                unit,
                work.engine,
                template,
                settings,
                config.seed,
                round_index=k,
                score=work.scored,
                on_rows=lambda batch: show_completions(bar, batch),
            )
            show_rewards(bar, rows, rows=0)
            return [records.encode(row) for row in rows]

        folder.stage("rationalised", plan, make, should_stop=work.watch.check)


def candidates(work: Work, k: int) -> list[Sample]:
    """All scored rows that round k may select from: of the rationalised ones the right ones."""
    folder = work.run.round(k)
    rows = list(folder.samples("reward"))
    if folder.has("resampled"):
        rows += folder.samples("resampled")
    if folder.has("rationalised"):
        mark = right_mark(work.config)
        rows += [
            row for row in folder.samples("rationalised") if row.reward is not None and row.reward >= mark
        ]
    return rows
