"""What a plan is made from, beside the weaknesses: the run's settings, its figures, and its earlier plans."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from selfrefine.config import Config
from selfrefine.objectives import OBJECTIVES
from selfrefine.records import Sample, Task, groups
from selfrefine.reflection.failures import passes
from selfrefine.reflection.findings import ActionKind, Outcome, Plan
from selfrefine.reflection.slices import question
from selfrefine.runfolder.ends import rejected_in_a_row
from selfrefine.runfolder.summaries import RoundSummary
from selfrefine.steps.evaluate import per_task
from selfrefine.steps.scoring import measuring_specs, trained_specs

EXAMPLES = 3
_LONGEST = 400
"""Characters of an example's question and answer together: the context is paid for with each answer."""


class Trial(Struct, frozen=True, kw_only=True):
    """A context tried on training tasks: paired, each task once with and once without."""

    kind: ActionKind
    text: str
    tasks: int
    """Scored both times."""
    without: float | None
    with_: float | None
    p_value: float | None
    """One-sided, paired: that the context is better."""
    better: bool


class Facts(Struct, frozen=True, kw_only=True):
    """Of the run and its last round; `config` is the run's own, without any plan."""

    config: Config
    gate_mean: float | None = None
    train_mean: float | None = None
    """Of the last round's samples; null before the first one."""
    truncated: float | None = None
    """Share of the last round's samples that were cut off."""
    gate_over: float | None = None
    """Share of the gate answers that a training sample's limit would have cut off."""
    never: float | None = None
    """Share of the last round's tasks that no sample got right."""
    never_ids: frozenset[str] = frozenset()
    """Those tasks."""
    varied: float | None = None
    """Different answers to a prompt, as a share of its samples."""
    measured: tuple[tuple[Task, float], ...] = ()
    """Tasks with their mean reward: those of the last round, before the first one the gate's."""
    examples: tuple[tuple[str, str], ...] = ()
    """(question, answer) of the policy's own right answers to training tasks."""
    references: bool = False
    """Whether training tasks have any."""
    template: bool = False
    """Whether the run has the template of a hint with the reference."""
    learnt_before: bool = False
    """Whether there are selected answers of earlier rounds."""
    rounds: tuple[RoundSummary, ...] = ()
    """The committed rounds, round 0 first."""
    plans: tuple[Plan, ...] = ()
    """Those that earlier rounds followed, oldest first."""
    outcomes: tuple[Outcome, ...] = ()
    """Of their actions, oldest first."""
    trials: tuple[Trial, ...] = ()
    """Made for this plan."""

    @property
    def on_policy(self) -> str | None:
        """Why answers must come from the policy as it is; None where they need not."""
        kind = OBJECTIVES.get(self.config.objective.name)
        if kind.rows == "groups" or kind.needs_old_logprobs:
            return (
                f"{kind.name} learns from the policy's own answers to the plain prompt, sampled as they are"
            )
        return None

    @property
    def held_tokens(self) -> int:
        """The longest answer to a held-out task that counts."""
        return self.config.evaluate.sampled(self.config.generate).max_new_tokens

    @property
    def same_reward(self) -> bool:
        """Whether training and gate figures are of the same rewards, and so can be compared."""
        return set(trained_specs(self.config)) == set(measuring_specs(self.config))

    def vetoed(self) -> list[str]:
        """The guards that rolled the last round back."""
        if not rejected_in_a_row(self.rounds):
            return []
        return [guard.name for guard in self.rounds[-1].guards if guard.state == "veto"]

    def failed_twice(self, kind: ActionKind) -> bool:
        """Whether the last two times that its number was measured, it had not moved."""
        moved = [one.moved for one in self.outcomes if one.kind == kind and one.moved is not None]
        return moved[-2:] == [False, False]

    def failed_last(self, kind: ActionKind) -> bool:
        """Whether its number had not moved when it was last measured."""
        moved = [one.moved for one in self.outcomes if one.kind == kind and one.moved is not None]
        return moved[-1:] == [False]


def never_right(samples: Sequence[Sample], mark: float) -> float | None:
    """The share of scored tasks of which no sample reached `mark`; null where nothing was scored."""
    scored = {row.task.id for row in samples if row.reward is not None}
    return len(never_ids(samples, mark)) / len(scored) if scored else None


def never_ids(samples: Sequence[Sample], mark: float) -> frozenset[str]:
    """The scored tasks of which no sample reached `mark`."""
    scored = {row.task.id for row in samples if row.reward is not None}
    return frozenset(
        scored - {row.task.id for row in samples if row.reward is not None and passes(row.reward, mark)}
    )


def truncated(samples: Sequence[Sample]) -> float | None:
    """The share that was cut off; null of none."""
    return sum(row.finish_reason == "length" for row in samples) / len(samples) if samples else None


def over(samples: Sequence[Sample], tokens: int) -> float | None:
    """The share that is cut off, or would be at this many tokens."""
    long = [row for row in samples if row.finish_reason == "length" or len(row.token_ids) > tokens]
    return len(long) / len(samples) if samples else None


def has_mark(samples: Sequence[Sample], config: Config) -> bool:
    """Whether it is known what a right answer is: `select.min_reward` says it, or all rewards are 0 or 1.

    With graded rewards (BLEU) and no mark no answer would be right, and everything would call for more.
    """
    known = [row.reward for row in samples if row.reward is not None]
    return config.select.min_reward is not None or all(min(one, 1 - one) < 1e-9 for one in known)


def varied(samples: Sequence[Sample]) -> float | None:
    """Different answers to a prompt as a share of its samples, over prompts with two or more."""
    shares = [
        len({row.text.strip() for row in group}) / len(group) for group in groups(samples) if len(group) > 1
    ]
    return sum(shares) / len(shares) if shares else None


def mean(samples: Sequence[Sample]) -> float | None:
    """Over tasks; null where none was scored."""
    known = [value for value in per_task(samples).values() if value is not None]
    return sum(known) / len(known) if known else None


def measured(samples: Sequence[Sample]) -> tuple[tuple[Task, float], ...]:
    """The scored tasks with their mean reward."""
    tasks = {row.task.id: row.task for row in samples}
    return tuple((tasks[key], value) for key, value in per_task(samples).items() if value is not None)


def own_examples(samples: Sequence[Sample], mark: float) -> tuple[tuple[str, str], ...]:
    """A few right answers of the policy, of tasks that it gets wrong often: the shortest of each of them.

    Not the easiest tasks, whose answers it needs no example for. At most EXAMPLES, hardest first.
    """
    found: list[tuple[float, str, str, str]] = []
    for group in groups(samples):
        right = [row for row in group if row.reward is not None and passes(row.reward, mark)]
        whole = [row for row in right if row.finish_reason == "stop" and row.text.strip()]
        asked = question(group[0].task)
        if not whole:
            continue
        best = min(whole, key=lambda row: (len(row.text), row.index))
        if len(asked) + len(best.text) <= _LONGEST:
            found.append((len(right) / len(group), group[0].task.id, asked, best.text.strip()))
    return tuple((asked, text) for _, _, asked, text in sorted(found)[:EXAMPLES])
