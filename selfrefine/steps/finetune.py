"""The step `finetune`: selected answers in, a LoRA adapter out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from selfrefine.config import ObjectiveConfig, TrainConfig
from selfrefine.engines.base import Trainer, from_server
from selfrefine.errors import DataError, NothingToLearnError, TrainingError
from selfrefine.layers import objective_settings
from selfrefine.objectives import OBJECTIVES
from selfrefine.prompts import Template
from selfrefine.records import Sample
from selfrefine.registry import outside_code
from selfrefine.runfolder.summaries import Cost, StageCost
from selfrefine.seeds import derive
from selfrefine.steps.training_items import equal_pairs, items, lessons

if TYPE_CHECKING:  # torch is imported when something is trained, not when a step is named
    from selfrefine.objectives.base import ObjectiveKind
    from selfrefine.training.loop import CheckpointStore, StepLog


UNTAUGHT = "nothing_to_show"
"""Rows without anything that a teacher could see and the policy does not."""
TOO_LONG = "too_long_for_the_teacher"
"""Rows whose answer, behind the teacher's prompt, is longer than the model's context. A model with learnt
positions would crash there, others would teach what they say where they never learnt to read."""


class NoCheckpoints:
    """For a fine-tune outside a run folder: nothing to resume from."""

    def load(self) -> Path | None:
        return None

    def replace(self, build: Callable[[Path], None]) -> None:
        """Keeps nothing."""


class Policies(Struct, frozen=True, kw_only=True):
    """Adapters a fine-tune knows besides the one it makes. None: the bare base; as a start, a fresh one."""

    start: Path | None = None
    sampler: Path | None = None
    """That of the round's answers: the accepted policy, or the undecided candidate after it."""
    reference: Path | None = None


class FinetuneSummary(StageCost, frozen=True, kw_only=True):
    """What `finetune` did; train.json in a round."""

    rows: int
    edited: int
    """Rows whose text is not what was sampled: encoded anew."""
    retokenised: int = 0
    """Rows that a model with another tokenizer sampled: prompt and answer are encoded anew."""
    steps: int
    trained_tokens: int
    teacher_tokens: int = 0
    """Prompt and answer of each row as its teacher read them, once; 0 where the objective has no teacher."""
    dropped: dict[str, int] = {}
    """Rows or groups the objective had no use for, by reason."""
    first_loss: float
    last_loss: float


def finetune(
    samples: Sequence[Sample],
    trainer: Trainer,
    config: TrainConfig,
    objective: ObjectiveConfig,
    run_seed: int,
    keep: Callable[[FinetuneSummary, list[bytes], Callable[[Path], None]], object],
    *,
    round_index: int = 1,
    policies: Policies = Policies(),
    teacher: Template | None = None,
    checkpoints: CheckpointStore | None = None,
    on_step: Callable[[Any, int], None] | None = None,
    rescue: Callable[[Callable[[Path], None]], object] | None = None,
) -> tuple[FinetuneSummary, str | None]:
    """Train an adapter and hand `keep` what was done, the log (a JSON line per step) and a function that
    writes the adapter into a folder. An engine that shares the trainer's weights has the bare model as its
    policy afterwards, until it is told which adapter to use. `teacher`: what that is asked, if the objective
    has one. Returns what was done, and a sentence for the user where there is something to know.

    With a non-finite loss the adapter as it was when its loss was last finite goes to `rescue`. Raises:
    NothingToLearnError, DataError (rows of another kind than the objective's), TrainingError.
    """
    from selfrefine.compute.packing import why_not
    from selfrefine.training.loop import train
    from selfrefine.training.plan import longest_row

    fitting, renewed, dropped = _learnable(samples, trainer, objective, teacher)
    kind, own = OBJECTIVES.get(objective.name), objective_settings(objective)
    seed = derive(run_seed, "finetune", round_index)
    with trainer.open(policies.start, config.lora, seed) as wrapped:
        fixed = _fixed(wrapped, trainer, fitting, objective, config, policies)
        try:
            with outside_code("objective", kind.name, kind.origin):
                log = train(
                    wrapped,
                    fixed,
                    kind,
                    config,
                    seed,
                    checkpoints or NoCheckpoints(),
                    on_step or (lambda row, total: None),
                    own,
                    trainer.memory,
                )
        except TrainingError:
            if rescue is not None:
                rescue(lambda folder: trainer.save(wrapped, folder))
            raise
        wrapped.train()  # dropout is a reason, and counts while training only
        done = _summary(log, fixed, renewed, dropped)
        lines = [msgspec.json.encode(row) for row in log]
        keep(done, lines, lambda folder: trainer.save(wrapped, folder))
        plain = why_not(wrapped, longest_row(fixed))
    return done, plain and f"finetune: prompts are computed again for each answer (slower), because {plain}"


def _fixed(
    wrapped: Any,
    trainer: Trainer,
    fitting: Sequence[Any],
    objective: ObjectiveConfig,
    config: TrainConfig,
    policies: Policies,
) -> list[Any]:
    """The items with what stays as it is while the policy is trained: logprobs under others, advantages."""
    from selfrefine.compute.device import token_budget
    from selfrefine.training.plan import longest_row, taught_lengths
    from selfrefine.training.precomputed import fix

    kind = OBJECTIVES.get(objective.name)
    with outside_code("objective", kind.name, kind.origin):
        return fix(
            wrapped,
            fitting,
            kind,
            objective_settings(objective),
            token_budget(config, wrapped.device.type, max([longest_row(fitting), *taught_lengths(fitting)])),
            lambda folder: trainer.as_policy(wrapped, folder),
            sampler=policies.sampler,
            reference=policies.reference,
            memory=trainer.memory,
        )


def _summary(
    log: Sequence[StepLog], fixed: Sequence[Any], renewed: tuple[int, int], dropped: dict[str, int]
) -> FinetuneSummary:
    from selfrefine.training.plan import taught_lengths

    tokens = sum(row.tokens for row in log)
    return FinetuneSummary(
        cost=Cost(trained_tokens=tokens),
        rows=len(fixed),
        edited=renewed[0],
        retokenised=renewed[1],
        steps=len(log),
        trained_tokens=tokens,
        teacher_tokens=sum(taught_lengths(fixed)),
        dropped=dropped,
        first_loss=log[0].loss,
        last_loss=log[-1].loss,
    )


def _learnable(
    samples: Sequence[Sample], trainer: Trainer, objective: ObjectiveConfig, teacher: Template | None
) -> tuple[list[Any], tuple[int, int], dict[str, int]]:
    """What the objective can learn from, how many rows were edited and re-tokenised, and what falls out for
    which reason.

    Raises: NothingToLearnError, DataError.
    """
    from selfrefine.objectives.fit import fit

    if not samples:
        raise NothingToLearnError(_why_none(objective.name, 0, {}))
    given, edited, foreign = items(samples, trainer.tokeniser, exact=trainer.exact_logprobs, teacher=teacher)
    kind, own = OBJECTIVES.get(objective.name), objective_settings(objective)
    stale = 0
    if kind.needs_old_logprobs:
        _refuse_servers(samples, kind)
        given, stale = _with_known_policy(samples, given)
    fitting, dropped = _unequal(samples, kind, *fit(given, kind, own))
    if kind.teacher is not None:
        fitting, why = _with_teacher(fitting, trainer.context_tokens)
        dropped |= why
    if stale:
        dropped["replayed_without_logprobs"] = stale
    if not fitting:
        raise NothingToLearnError(_why_none(objective.name, len(given), dropped))
    return fitting, (edited, foreign), dropped


def _refuse_servers(samples: Sequence[Sample], kind: ObjectiveKind) -> None:
    """Raises: DataError for rows whose sampling policy is not at hand, so that no ratio to it can be had."""
    served = [row for row in samples if from_server(row.engine)]
    if served:
        raise DataError(
            f"row {served[0].id}: objective {kind.name} needs logprobs of the policy that sampled, a "
            "server's, whose weights are not at hand; use an objective without ratios, such as sft or dpo"
        )


def _with_teacher(fitting: list[Any], context_tokens: int) -> tuple[list[Any], dict[str, int]]:
    """The items whose teacher has something to see and room for it, and why the others fall out."""
    from selfrefine.training.plan import taught_lengths

    seen = [item for item in fitting if item.teacher_prompt_token_ids]
    lengths = taught_lengths(seen)
    kept = [item for item, n in zip(seen, lengths, strict=True) if n <= context_tokens]
    found = {UNTAUGHT: len(fitting) - len(seen), TOO_LONG: len(seen) - len(kept)}
    return kept, {why: n for why, n in found.items() if n}


def check_fit(samples: Sequence[Sample], objective: ObjectiveConfig) -> None:
    """What can be said of the rows before a model is loaded. Raises: NothingToLearnError, DataError."""
    from selfrefine.objectives.fit import fit_rows

    kind = OBJECTIVES.get(objective.name)
    if kind.needs_old_logprobs:
        _refuse_servers(samples, kind)
    fitting, dropped = _unequal(samples, kind, *fit_rows(lessons(samples), kind))
    if not fitting:
        raise NothingToLearnError(_why_none(objective.name, len(samples), dropped))


def _unequal(
    samples: Sequence[Sample], kind: ObjectiveKind, fitting: list[Any], dropped: dict[str, int]
) -> tuple[list[Any], dict[str, int]]:
    """Without pairs of equal texts, if the objective compares; to others the chosen one is an example."""
    if kind.rows not in ("pairs", "labels"):
        return fitting, dropped
    equal = equal_pairs(samples)
    kept = [item for item in fitting if item.pair not in equal]
    n = len(fitting) - len(kept)
    return kept, dropped | ({"in_equal_pairs": n} if n else {})


def _why_none(objective: str, rows: int, dropped: dict[str, int]) -> str:
    if not rows:
        return "there is no row to learn from"
    if dropped == {"unscored": rows}:
        return f"{objective} learns from rewards, and no row has one: run `selfrefine reward` first"
    if dropped == {UNTAUGHT: rows}:
        return (
            f"{objective} needs something to show its teacher, and no row has a reference, a reward's detail "
            "or a critique that the template shows"
        )
    why = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in dropped.items())
    return f"{objective} can learn from none of {rows:,} rows: {why}"


def _with_known_policy(samples: Sequence[Sample], given: list[Any]) -> tuple[list[Any], int]:
    """Without replayed rows whose logprobs are not usable (half precision, an edited text), where a ratio to
    the policy that sampled is needed: that of an earlier round is not at hand, and with the present one's the
    ratio would be 1."""
    latest = max(row.round for row in samples)
    kept = [
        item
        for row, item in zip(samples, given, strict=True)
        if row.round == latest or item.old_logprobs is not None
    ]
    return kept, len(given) - len(kept)
