"""The step `reward`: samples in, the same samples with rewards and their composite out.

    scorers = build(specs, options)
    samples = score(samples, scorers)          a window of rows; the rows of one task stand together
    sums += scored_sums(samples, scorers)
    require_some_scored(summary(sums, scorers))               after the last window

Only the rows of one window are held, and group rewards see the rows of a task within it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from selfrefine.boundary import escaped
from selfrefine.engines.base import require
from selfrefine.errors import ConfigError, DataError
from selfrefine.records import UNDECODABLE, Critique, Message, Reward, Sample, Task, groups, why_undecodable
from selfrefine.registry import BUILT_IN, split
from selfrefine.rewards import REWARDS, outside
from selfrefine.rewards.base import (
    CorpusFigure,
    CorpusScore,
    RewardOptions,
    RewardSpec,
    Scorer,
    own_settings,
    unscored,
)
from selfrefine.runfolder.jsonl import lines
from selfrefine.runfolder.summaries import StageCost
from selfrefine.sums import Sums
from selfrefine.words import nearest

NO_REFERENCES = "no references"
WITHOUT_REFERENCES = "; choose a reward that needs none: length, regex with a pattern, file.py:function"


def parse_spec(text: str) -> RewardSpec:
    """`NAME[:weight]` or `file.py:function[:weight]`. Raises: ConfigError.

    A weight is finite and above 0: a reward to be kept away from is written as one that is high when the
    answer is good, so that every part and the composite stay in [0, 1].
    """
    if escaped(text) != text:
        raise ConfigError(f"reward {escaped(text)}: the name is not UTF-8; rename the file")
    name, has_weight, weight_text = split(text)
    if not name or name.endswith((":", ".py")):
        raise ConfigError(f"reward {text!r}: write NAME[:weight] or path/to/file.py:function[:weight]")
    try:
        weight = float(weight_text) if has_weight else 1.0
    except ValueError:
        raise ConfigError(f"reward {text!r}: the weight {weight_text!r} is not a number") from None
    if not math.isfinite(weight) or weight <= 0:
        raise ConfigError(f"reward {text!r}: the weight must be a finite number above 0")
    return RewardSpec(name=name, weight=weight)


def needs_engine(specs: Iterable[RewardSpec]) -> bool:
    """Whether a model has to be loaded for these."""
    return any(REWARDS.get(spec.name).needs_engine for spec in specs)


def build(specs: Sequence[RewardSpec], options: RewardOptions) -> tuple[Scorer, ...]:
    """The scorers of `specs`, in order.

    Raises: ConfigError (unknown name or setting, a file or plugin that does not import, a model-based reward
    without an engine).
    """
    check(specs, options.settings)
    return tuple(_build_one(spec, options) for spec in specs)


def check(specs: Sequence[RewardSpec], settings: Mapping[str, dict[str, Any]]) -> None:
    """Names and settings, without making a scorer. Raises: ConfigError."""
    names = [spec.name for spec in specs]
    if not names:
        raise ConfigError("no reward chosen: use -r NAME")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"reward {name} is given twice: name it once, with a weight")
        REWARDS.get(name)
    for name, table in settings.items():
        own_settings(REWARDS.get(name), table)  # those that are not used now, too


def _build_one(spec: RewardSpec, options: RewardOptions) -> Scorer:
    kind = REWARDS.get(spec.name)
    own, pass_at = own_settings(kind, options.settings.get(spec.name, {}))
    if kind.needs_engine:
        if options.engine is None:
            raise ConfigError(f"reward {spec.name} needs a model, and none was given")
        require(options.engine, "score", f"reward {spec.name} needs logprobs")
    made = outside.make(kind, own, options)
    if options.isolate is not None and kind.origin != BUILT_IN:
        from selfrefine.rewards.isolated import isolated

        made = isolated(kind, made, options)
    needed = kind.wants_references(own)
    return msgspec.structs.replace(
        made, name=spec.name, weight=spec.weight, pass_at=pass_at, needs_references=needed
    )


def score(
    samples: Sequence[Sample],
    scorers: Sequence[Scorer],
    gate_on: str | None = None,
    *,
    invert: bool = False,
) -> list[Sample]:
    """The samples with each scorer's Reward and the composite `reward`, in order.

    The composite is the weighted mean of these scorers' values; null when one of them is null. With `gate_on`
    it is 0 where that reward is below its `pass_at`, and the mean of the others where it passes: counted in,
    it would give half marks to every answer that merely passes. With `invert` it is 1 less that: a control
    (the rewards themselves stay). A reward of the same name from an earlier scoring is replaced, others stay.
    Raises: ConfigError when `gate_on` is none of the scorers.
    """
    check_gate(gate_on, [scorer.name for scorer in scorers])
    columns = [_column(samples, scorer) for scorer in scorers]
    scored = [
        _with_rewards(sample, [column[i] for column in columns], scorers, gate_on)
        for i, sample in enumerate(samples)
    ]
    return [_inverted(sample) for sample in scored] if invert else scored


def check_gate(gate_on: str | None, names: Collection[str]) -> None:
    """Raises: ConfigError where it is none of the rewards of these names."""
    if gate_on is not None and gate_on not in names:
        raise ConfigError(f"--gate-on {gate_on}: not among the rewards in use{nearest(gate_on, names)}")


def _inverted(sample: Sample) -> Sample:
    return sample if sample.reward is None else msgspec.structs.replace(sample, reward=1.0 - sample.reward)


def _column(samples: Sequence[Sample], scorer: Scorer) -> list[Reward]:
    """One reward for every row: rows that cannot be scored are kept away from the scorer."""
    reasons = [_why_not(sample, scorer) for sample in samples]
    fit = [sample for sample, reason in zip(samples, reasons, strict=True) if reason is None]
    scored = scorer.score(fit) if fit else []
    if len(scored) != len(fit):
        raise ValueError(f"reward {scorer.name} answered {len(scored)} values for {len(fit)} samples")
    following = iter(scored)
    return [next(following) if reason is None else unscored(scorer.name, reason) for reason in reasons]


def _why_not(sample: Sample, scorer: Scorer) -> str | None:
    if sample.error is not None or sample.finish_reason == "error":
        return f"no answer: {sample.error or 'generation failed'}"
    if scorer.needs_references and not any(reference.strip() for reference in sample.task.references):
        return NO_REFERENCES
    return None


def _with_rewards(
    sample: Sample, new: Sequence[Reward], scorers: Sequence[Scorer], gate_on: str | None
) -> Sample:
    names = {reward.name for reward in new}
    kept = [reward for reward in sample.rewards if reward.name not in names]
    composite = _composite(new, scorers, gate_on)
    return msgspec.structs.replace(sample, rewards=(*kept, *new), reward=composite)


def _composite(rewards: Sequence[Reward], scorers: Sequence[Scorer], gate_on: str | None) -> float | None:
    values = [reward.value for reward in rewards if reward.value is not None]
    if len(values) < len(rewards):
        return None
    pairs = list(zip(scorers, values, strict=True))
    if any(scorer.name == gate_on and value < scorer.pass_at for scorer, value in pairs):
        return 0.0
    pairs = [pair for pair in pairs if pair[0].name != gate_on] or pairs
    weights = [scorer.weight for scorer, _ in pairs]
    values = [value for _, value in pairs]
    # Divided first: huge weights must not overflow; the clip takes off the last bit's rounding.
    total = math.fsum(value * (weight / max(weights)) for value, weight in zip(values, weights, strict=True))
    return min(1.0, total / math.fsum(weight / max(weights) for weight in weights))


class MeanSums(Sums, frozen=True, kw_only=True):
    """A mean in the making. `first_error`: why the first unscored row has no value."""

    total: float = 0.0
    scored: int = 0
    unscored: int = 0
    first_error: str | None = None


class CorpusSums(Sums, frozen=True, kw_only=True):
    """A corpus figure in the making: its statistics, and how many rows have how many references."""

    sums: tuple[float, ...] = ()
    references: dict[int, int] = {}


class RewardSums(Sums, frozen=True, kw_only=True):
    """What scoring came to, as sums over commit units; a task's rows are in one unit."""

    rows: int = 0
    groups: int = 0
    """Prompts with two scored rows or more; of them `flat` have rows of one reward only."""
    flat: int = 0
    reward: MeanSums = MeanSums()
    rewards: dict[str, MeanSums] = {}
    corpus: dict[str, CorpusSums] = {}


def scored_sums(samples: Sequence[Sample], scorers: Sequence[Scorer]) -> RewardSums:
    """Of scored rows."""
    by_name = [{reward.name: reward for reward in row.rewards} for row in samples]
    found = {scorer.name: [rewards.get(scorer.name) for rewards in by_name] for scorer in scorers}
    graded = [[row.reward for row in group if row.reward is not None] for group in groups(samples)]
    spread = [len(set(values)) > 1 for values in graded if len(values) > 1]
    return RewardSums(
        rows=len(samples),
        groups=len(spread),
        flat=spread.count(False),
        reward=_mean_sums((row.reward, None) for row in samples),
        rewards={
            name: _mean_sums((one.value, one.error) for one in column if one is not None)
            for name, column in found.items()
        },
        corpus={
            scorer.name: _corpus_sums(
                [
                    row
                    for row, one in zip(samples, found[scorer.name], strict=True)
                    if one is not None and one.value is not None
                ],
                scorer.corpus(),
            )
            for scorer in scorers
            if scorer.corpus
        },
    )


def mean_sums(samples: Sequence[Sample]) -> dict[str, MeanSums]:
    """Of all rewards that the rows carry, by name."""
    found: dict[str, list[Reward]] = {}
    for row in samples:
        for one in row.rewards:
            found.setdefault(one.name, []).append(one)
    return {name: _mean_sums((one.value, one.error) for one in column) for name, column in found.items()}


def _mean_sums(pairs: Iterable[tuple[float | None, str | None]]) -> MeanSums:
    known = list(pairs)
    values = [value for value, _ in known if value is not None]
    errors = [error for value, error in known if value is None]
    return MeanSums(
        total=math.fsum(values),
        scored=len(values),
        unscored=len(errors),
        first_error=next(filter(None, errors), None),
    )


def _corpus_sums(rows: Sequence[Sample], figure: CorpusFigure) -> CorpusSums:
    statistics = [figure.statistics(row) for row in rows]
    return CorpusSums(
        sums=tuple(map(math.fsum, zip(*statistics, strict=True))),
        references=dict(Counter(len(row.task.references) for row in rows)),
    )


class Mean(Struct, frozen=True, kw_only=True):
    """`mean` is null when nothing was scored."""

    mean: float | None
    scored: int
    unscored: int
    first_error: str | None = None


class RewardSummary(StageCost, frozen=True, kw_only=True):
    """`reward` is the composite. `corpus`: by name, the figure in the metric's own unit."""

    rows: int
    groups: int
    groups_without_spread: int
    reward: Mean
    rewards: dict[str, Mean]
    corpus: dict[str, CorpusScore] = {}


def summary(sums: RewardSums, scorers: Sequence[Scorer]) -> RewardSummary:
    """Means and corpus figures from sums. Scoring samples nothing: it has no cost."""
    figures = {scorer.name: scorer.corpus() for scorer in scorers if scorer.corpus}
    return RewardSummary(
        rows=sums.rows,
        groups=sums.groups,
        groups_without_spread=sums.flat,
        reward=_mean(sums.reward),
        rewards={name: _mean(one) for name, one in sums.rewards.items()},
        corpus={
            name: figures[name].result(one.sums, one.references)
            for name, one in sums.corpus.items()
            if one.sums
        },
    )


def _mean(sums: MeanSums) -> Mean:
    mean = sums.total / sums.scored if sums.scored else None
    return Mean(mean=mean, scored=sums.scored, unscored=sums.unscored, first_error=sums.first_error)


def require_some_scored(found: RewardSummary) -> None:
    """Raises: DataError when there were rows and one of the rewards could be computed on none of them."""
    require_scored(found.rewards)


def require_scored(rewards: Mapping[str, Mean] | Mapping[str, MeanSums]) -> None:
    """Raises: DataError when one of these could be computed on none of its rows."""
    for name, mean in rewards.items():
        if mean.unscored and not mean.scored:
            rows = "the only row" if mean.unscored == 1 else f"any of the {mean.unscored:,} rows"
            raise DataError(
                f"reward {name} could not be computed on {rows}: {mean.first_error}"
                f"{WITHOUT_REFERENCES if mean.first_error == NO_REFERENCES else ''}"
            )


class SelfTestRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of a `--selftest` file: an answer that is known to be good or bad."""

    prompt: str | tuple[Message, ...]
    text: str
    label: Literal["good", "bad"]
    references: tuple[str, ...] = ()
    meta: dict[str, Any] = {}
    critiques: tuple[Critique, ...] = ()
    where: str = ""


def selftest_rows(stream: Iterable[bytes], source: str = "selftest") -> list[SelfTestRow]:
    """JSON lines to rows, empty lines skipped. Raises: DataError naming `source:line`."""
    rows = []
    for where, line in lines(stream, source):
        try:
            row = msgspec.json.decode(line, type=SelfTestRow)
        except UNDECODABLE as error:
            raise DataError(f"{where}: {why_undecodable(line, error)}") from None
        rows.append(msgspec.structs.replace(row, where=where))
    return rows


def selftest(rows: Sequence[SelfTestRow], scorers: Sequence[Scorer], gate_on: str | None = None) -> list[str]:
    """What is wrong with these rewards, one sentence each; empty when all is well.

    For every prompt each good answer's composite must lie strictly above each bad one's. It catches what
    reads as harmless code: answer and reference swapped, a wrong sign. Raises: DataError when no prompt has
    both a good and a bad answer.
    """
    by_prompt: dict[str, list[SelfTestRow]] = {}
    for row in rows:
        by_prompt.setdefault(json.dumps(msgspec.to_builtins(row.prompt)), []).append(row)
    compared = [group for group in by_prompt.values() if len({row.label for row in group}) == 2]
    if not compared:
        raise DataError("the self-test has no prompt with both a good and a bad answer")
    flat = [(i, row) for i, group in enumerate(compared) for row in group]
    scored = score([_selftest_sample(row, i) for i, row in flat], scorers, gate_on)
    problems = []
    sides: dict[tuple[int, str], list[tuple[str, float]]] = {}
    for (i, row), sample in zip(flat, scored, strict=True):
        if sample.reward is None:
            problems.append(f"{row.where} ({row.label}): unscored, {_reasons(sample)}")
        else:
            sides.setdefault((i, row.label), []).append((row.where, sample.reward))
    for i in range(len(compared)):
        for good, high in sides.get((i, "good"), []):
            for bad, low in sides.get((i, "bad"), []):
                if not high > low:
                    problems.append(f"{good} (good) scores {high:.3f}, {bad} (bad) scores {low:.3f}")
    return problems


def _selftest_sample(row: SelfTestRow, prompt: int) -> Sample:
    messages = (Message(role="user", content=row.prompt),) if isinstance(row.prompt, str) else row.prompt
    task = Task(id=f"selftest-{prompt}", prompt=messages, references=row.references, meta=row.meta)
    return Sample(id=row.where, task=task, text=row.text, critiques=row.critiques)


def _reasons(sample: Sample) -> str:
    return "; ".join(f"{reward.name}: {reward.error}" for reward in sample.rewards if reward.value is None)
