"""What a round came to, from its files: what it learnt from, what it changed, and what to try next.

Figures only, words are made in `report/diagnosed.py`: the terminal, `runs show` and a page say the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from selfrefine.config import Config, CycleConfig
from selfrefine.errors import ConfigError, DataError, RunFolderError
from selfrefine.layers import stored
from selfrefine.records import Count, Sample
from selfrefine.reflection import advice
from selfrefine.reflection.advice import Suggestion
from selfrefine.reflection.changes import Flips, TagGain, by_tag, flips
from selfrefine.runfolder.jsonl import lines, read_json
from selfrefine.runfolder.round import TRAINING_LOG, RoundDir
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import RoundSummary
from selfrefine.seeds import derive, generator
from selfrefine.steps.critique_outcome import is_right
from selfrefine.steps.evaluate import per_task

EXAMPLES = 3
MOST_SCORED = 256
"""Learnt answers that are scored for the diagnosis alone, a seeded draw: a reward may take seconds a row."""


class Learnt(Struct, frozen=True, kw_only=True):
    """The answers a round learnt from (not those of earlier rounds that were replayed), by what measures."""

    measure: str
    """Names of the measuring rewards, joined by " + "."""
    scored: Count = 0
    """All that were learnt, or up to MOST_SCORED of them where they are scored now; null scores left out."""
    passing: Count = 0
    """Answers with full marks in all of them."""
    mean: float | None = None
    why: str = ""
    """Why nothing is scored."""


class Changed(Struct, frozen=True, kw_only=True):
    """A task that flipped: its first answer under the accepted policy and under the candidate."""

    task_id: str
    prompt: str
    before: str
    after: str
    before_reward: float | None
    after_reward: float | None


class Diagnosis(Struct, frozen=True, kw_only=True):
    """Round k. null: the round has no such figure."""

    round: Count
    outcome: Literal["accept", "undecided", "reject"] | None = None
    prompts: Count | None = None
    """Training tasks that were answered."""
    samples: Count | None = None
    truncated: Count | None = None
    """Of these samples."""
    learnt: Count | None = None
    """Answers selected from this round."""
    learnt_prompts: Count | None = None
    replayed: Count = 0
    passes: Learnt | None = None
    steps: Count | None = None
    loss_early: float | None = None
    """Mean loss of the first third of the steps; null below six steps."""
    loss_late: float | None = None
    """Of the last third."""
    groups: Count | None = None
    groups_without_spread: Count | None = None
    trained: dict[str, float | None] = {}
    """Mean of the training rewards over this round's samples, by name."""
    measured: dict[str, float | None] = {}
    """Mean of the measuring rewards over the candidate's held-out answers, by name."""
    gate_truncated: float | None = None
    """Share of the candidate's held-out answers that were cut off."""
    flips: Flips | None = None
    """Gate tasks, from the accepted policy to the candidate."""
    looked_at: Count = 0
    """Values of tags that were compared; the intervals of `improved` and `worse` hold for all of them."""
    improved: tuple[TagGain, ...] = ()
    """The greatest change first."""
    worse: tuple[TagGain, ...] = ()
    examples: tuple[Changed, ...] = ()
    """Tasks that flipped, those that became wrong first."""
    suggestion: Suggestion | None = None


def diagnosis(run: Run, k: int, *, asked: CycleConfig | None = None, rows: bool = True) -> Diagnosis:
    """Of the committed round k >= 1.

    asked: how long the running command goes on; without it, the run's own settings.
    rows: read what was learnt, too (`passes`): that file grows with the round.
    Raises: RunFolderError, DataError where the round's files are damaged.
    """
    folder, config = run.round(k), stored(run.manifest.config)
    summaries = [run.summary(j) for j in range(k + 1)]
    own = summaries[k]
    found = _changes(run, folder, summaries[k - 1].accepted_round, _seed(run))
    found = replace(
        found,
        round=k,
        outcome=None if own.gate is None else own.gate.outcome,
        **_counts(folder),
        measured=_means(_told(folder, "gate").get("rewards", {})),
        passes=_passes(folder, config) if rows else None,
    )
    suggestion = advice.suggest(_facts(found, run, config, summaries, asked))
    return replace(found, suggestion=suggestion)


def _facts(
    found: Diagnosis,
    run: Run,
    config: Config,
    summaries: Sequence[RoundSummary],
    asked: CycleConfig | None,
) -> advice.Facts:
    """What the advice goes by."""
    spread = found.groups_without_spread
    return advice.Facts(
        config=config,
        cycle=asked or config.cycle,
        summaries=summaries,
        origins=run.manifest.origins,
        train_tasks=run.count_tasks("train"),
        gate_tasks=run.count_tasks("gate"),
        flat=spread / found.groups if spread is not None and found.groups else None,
        mean=next(iter(found.trained.values()), None) if len(found.trained) == 1 else None,
        learnt=found.learnt,
        passing=_share(found.passes),
        gate_truncated=found.gate_truncated,
        plan=advice.planned(run.round(found.round + 1).path),
        plans=run.manifest.config.get("reflect", {}).get("plan", "off") != "off",
    )


def _changes(run: Run, folder: RoundDir, accepted: int, seed: int) -> Diagnosis:
    """What the candidate made of the gate tasks, against the policy that was accepted before it."""
    before, after = (_answers(one, "gate") for one in (run.round(accepted), folder))
    if not before or not after:
        return Diagnosis(round=folder.index)
    gains = by_tag(before, after, seed, joint=True)
    cut = [row.finish_reason == "length" for row in after]
    return Diagnosis(
        round=folder.index,
        gate_truncated=sum(cut) / len(cut),
        flips=flips(before, after),
        looked_at=len(gains),
        improved=tuple(
            sorted(
                (one for one in gains if (one.gain.lo or 0.0) > 0), key=lambda one: -(one.gain.mean or 0.0)
            )
        ),
        worse=tuple(
            sorted((one for one in gains if (one.gain.hi or 0.0) < 0), key=lambda one: one.gain.mean or 0.0)
        ),
        examples=changed(before, after),
    )


def changed(before: Sequence[Sample], after: Sequence[Sample], most: int = EXAMPLES) -> tuple[Changed, ...]:
    """Tasks whose mean reward changed, the greatest losses first; of the gains one at least."""
    old, new = per_task(before), per_task(after)
    moved = {
        key: a - b for key, b in old.items() if b is not None and (a := new.get(key)) is not None and a != b
    }
    first = [{row.task.id: row for row in reversed(rows)} for rows in (before, after)]
    order = sorted(moved, key=lambda key: -abs(moved[key]))
    lost, won = ([key for key in order if (moved[key] < 0) is side] for side in (True, False))
    shown = [*lost[: max(most - 1, most - len(won))], *won]
    return tuple(
        Changed(
            task_id=key,
            prompt=first[0][key].task.prompt[-1].content,
            before=first[0][key].text,
            after=first[1][key].text,
            before_reward=old[key],
            after_reward=new[key],
        )
        for key in shown[:most]
    )


def _answers(folder: RoundDir, name: str) -> list[Sample]:
    return list(folder.samples(name)) if folder.has(name) else []


def _told(folder: RoundDir, name: str) -> dict[str, Any]:
    """A stage's summary as it stands there: of older versions, too, which told less."""
    return read_json(folder.summary_file(name), dict[str, Any]) or {}


def _counts(folder: RoundDir) -> dict[str, Any]:
    drawn, scored, chosen, trained = (
        _told(folder, name) for name in ("generate", "reward", "selected", TRAINING_LOG)
    )
    early, late = _losses(folder)
    return {
        "prompts": drawn.get("tasks"),
        "samples": drawn.get("samples"),
        "truncated": drawn.get("truncated"),
        "learnt": chosen.get("selected"),
        "learnt_prompts": chosen.get("prompts_selected"),
        "replayed": chosen.get("replayed") or 0,
        "steps": trained.get("steps"),
        "loss_early": early,
        "loss_late": late,
        "groups": scored.get("groups"),
        "groups_without_spread": scored.get("groups_without_spread"),
        "trained": _means(scored),
    }


_FEW_STEPS = 6


class _Step(Struct):
    loss: float


def _losses(folder: RoundDir) -> tuple[float | None, float | None]:
    """Each step has other answers, so that its loss alone says little: thirds are compared."""
    path = folder.file(TRAINING_LOG)
    if not path.is_file():
        return None, None
    with path.open("rb") as stream:
        try:
            values = [msgspec.json.decode(line, type=_Step).loss for _, line in lines(stream, path.name)]
        except msgspec.DecodeError as error:
            raise RunFolderError(f"{path} is damaged: {error}") from None
    third = len(values) // 3
    if len(values) < _FEW_STEPS:
        return None, None
    return math.fsum(values[:third]) / third, math.fsum(values[-third:]) / third


def _means(told: Mapping[str, Any]) -> dict[str, float | None]:
    return {str(name): one.get("mean") for name, one in (told.get("rewards") or {}).items()}


def _passes(folder: RoundDir, config: Config) -> Learnt | None:
    """The answers that were learnt, by the rewards that measure: their own scores where those were trained
    on, else scored now, as far as no model is asked."""
    from selfrefine.steps import reward  # loads every reward, which a look at the counts does without
    from selfrefine.steps.scoring import build_rewards, measuring_specs, trained_specs

    if not folder.has("selected"):
        return None
    try:
        specs = measuring_specs(config)
    except ConfigError as error:
        return Learnt(measure="", why=str(error))
    names = [reward.parse_spec(text).name for text in specs]
    found = Learnt(measure=" + ".join(names))
    rows = [row for row in folder.samples("selected") if _is_learnt(row, folder.index)]
    trained = {reward.parse_spec(text).name for text in trained_specs(config)}
    if not trained.issuperset(names) or config.reward.invert:
        if reward.needs_engine(map(reward.parse_spec, specs)):
            return replace(found, why="this measure asks a model")
        # Not every tenth: rows stand by prompt, so that steps would meet the same of its answers each time.
        drawn = generator(derive(config.seed, "diagnosis", folder.index)).permutation(len(rows))
        rows = [rows[i] for i in sorted(drawn[:MOST_SCORED].tolist())]
        try:
            rows = reward.score(rows, build_rewards(config, specs, None))
        except (ConfigError, DataError) as error:
            return replace(found, why=str(error))
    values = [{one.name: one.value for one in row.rewards} for row in rows]
    scores = [[value for name in names if (value := own.get(name)) is not None] for own in values]
    whole = [own for own in scores if len(own) == len(names)]
    return replace(
        found,
        scored=len(whole),
        passing=sum(all(map(is_right, own)) for own in whole),
        mean=math.fsum(math.fsum(own) / len(own) for own in whole) / len(whole) if whole else None,
    )


def _is_learnt(row: Sample, k: int) -> bool:
    """An answer of this round that is made more probable, and neither a critique nor a verdict."""
    lesson = None if row.lesson is UNSET else row.lesson
    answers = lesson is None or (lesson.role != "rejected" and lesson.teaches in ("answer", "revision"))
    return row.round == k and answers


def _share(passes: Learnt | None) -> float | None:
    return passes.passing / passes.scored if passes is not None and passes.scored else None


def _seed(run: Run) -> int:
    return run.manifest.seeds.get("run", 0)
