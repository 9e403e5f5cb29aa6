"""The held-out comparison of critique: drafts, their revisions, and fresh samples for the same tokens.

All three are drawn as in training (a greedy revision mostly repeats its draft, a greedy fresh sample always
does), one draft a task, with the seeds of round 0 whatever the round. Fresh samples are defined in
`critique_outcome`; their reward is the mean over a draft's n.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw

from selfrefine import records
from selfrefine.records import Sample, Task, groups
from selfrefine.runfolder.jsonl import atomic_write
from selfrefine.runfolder.round import RoundDir
from selfrefine.stages import alarms
from selfrefine.stages.watch import show_completions, show_rewards
from selfrefine.stages.work import Work, critique_settings, critique_templates, generate_settings, ring, timed
from selfrefine.stats import interval, paired_difference
from selfrefine.steps import generate as generate_step
from selfrefine.steps import reward as reward_step
from selfrefine.steps.critique import critique
from selfrefine.steps.units import cut

FRESH = "fresh"
"""Column of a fresh sample in revised.jsonl."""


def measure(work: Work, folder: RoundDir, label: str) -> dict[str, Any]:
    """The engine's policy on the test tasks: revised.jsonl, and revised.json, whose content is returned."""
    note = folder.path / "revised.json"
    if folder.has("revised") and note.is_file():
        return msgspec.json.decode(note.read_bytes(), type=dict[str, Any])
    config = work.config
    drawing = msgspec.structs.replace(generate_settings(config), n=1)
    # With the fresh samples, also where training rounds save them.
    settings = msgspec.structs.replace(critique_settings(config, work.run.prompts_dir), control=True)
    templates = critique_templates(config, work.run.prompts_dir)
    new = drawing.max_new_tokens
    each = new + settings.passes * (settings.critique.max_new_tokens + new)
    tasks = work.run.tasks("test")
    plan = list(cut(tasks, lambda _: each, work.engine.unit_tokens, lambda task: task.id))
    name = folder.path.name
    place: int | Literal["final"] = "final" if name == "final" else int(name.removeprefix("round-"))
    with timed(work, place, "revised"), work.watch.stage(f"{label} revised", len(tasks)) as bar:

        def make(unit: list[Task]) -> list[bytes]:
            drafts = generate_step.generate(
                unit,
                work.engine,
                drawing,
                config.seed,
                stage="revised",
                on_rows=lambda batch: show_completions(bar, batch),
            )
            result = critique(
                drafts,
                work.engine,
                work.critic,
                templates,
                settings,
                config.seed,
                lambda rows: reward_step.score(rows, work.measures, work.gate_on),
            )
            show_rewards(bar, result.rows, rows=0)
            fresh = [msgspec.structs.replace(row, extra={FRESH: Raw(b"true")}) for row in result.controls]
            return [records.encode(row) for row in (*result.rows, *fresh)]

        folder.stage("revised", plan, make, should_stop=work.watch.check)
    ring(work, place, "revised", alarms.of_critiques(list(folder.samples("revised")), config.alarms))
    found = compare(folder.samples("revised"), config.seed)
    text = msgspec.json.format(msgspec.json.encode(found, order="deterministic"))
    atomic_write(note, text + b"\n")
    return msgspec.json.decode(text, type=dict[str, Any])


def compare(rows: Iterable[Sample], seed: int) -> dict[str, Any]:
    """`draft` and `revision` over all tasks (where the critic was content the draft stands), `fresh` over the
    revised ones; each difference paired by task. A critic that is content with everything leaves no fresh
    sample and nothing to say: null.
    """
    drafts: dict[str, float | None] = {}
    revisions: dict[str, float | None] = {}
    revised: dict[str, float | None] = {}
    fresh: dict[str, float | None] = {}
    tokens = {"draft": 0, "critique": 0, "revision": 0, "fresh": 0}
    for group in groups(list(rows)):
        key = group[0].task.id
        asked_again = [row for row in group if is_fresh(row)]
        thread = [row for row in group if not is_fresh(row)]
        drafts[key], revisions[key] = thread[0].reward, thread[-1].reward
        if len(thread) > 1:
            revised[key], fresh[key] = thread[-1].reward, _mean([row.reward for row in asked_again])
        tokens["draft"] += len(thread[0].token_ids)
        tokens["critique"] += sum(len(told.token_ids) for row in thread for told in row.critiques)
        tokens["revision"] += sum(len(row.token_ids) for row in thread[1:])
        tokens["fresh"] += sum(len(row.token_ids) for row in asked_again)
    told: dict[str, Any] = {
        "draft": interval(list(drafts.values())),
        "revision": interval(list(revisions.values())),
        "fresh": interval(list(fresh.values())),
        "revision_minus_draft": paired_difference(drafts, revisions, seed=seed),
        "revision_minus_fresh": paired_difference(fresh, revised, seed=seed),
        "tokens": tokens,
    }
    return told


def is_fresh(row: Sample) -> bool:
    return isinstance(row.extra, dict) and FRESH in row.extra


def _mean(rewards: Sequence[float | None]) -> float | None:
    scored = [reward for reward in rewards if reward is not None]
    return sum(scored) / len(scored) if scored else None
