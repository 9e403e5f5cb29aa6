"""The step `reward`: samples in, the same samples with rewards and their composite out.

    scorers = build(specs, options, engine)
    samples = score(samples, scorers)          a window of rows; the rows of one task stand together
    tally = Tally(scorers); tally.add(samples); summary = tally.result()
    require_some_scored(summary)               after the last window

Only the rows of one window are held, and group rewards see the rows of a task within it.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

from selfrefine.engines.base import Engine
from selfrefine.errors import ConfigError, DataError
from selfrefine.records import Critique, Message, Reward, Sample, Task
from selfrefine.rewards import NEEDS_ENGINE, REWARDS, outside
from selfrefine.rewards.base import CorpusFigure, RewardOptions, RewardSpec, Scorer, nearest, unscored
from selfrefine.runfolder.jsonl import lines

Factory = Callable[[RewardOptions, Engine | None], Scorer]


def parse_spec(text: str) -> RewardSpec:
    """`NAME[:weight]` or `file.py:function[:weight]`. Raises: ConfigError.

    A weight is finite and above 0: a reward to be kept away from is written as one that is high when the
    answer is good, so that every part and the composite stay in [0, 1].
    """
    path, is_file, rest = text.partition(".py:")
    name, has_weight, weight_text = rest.partition(":") if is_file else text.partition(":")
    name = f"{path}.py:{name}" if is_file else name
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
    return any(spec.name in NEEDS_ENGINE for spec in specs)


def build(
    specs: Sequence[RewardSpec], options: RewardOptions, engine: Engine | None = None
) -> tuple[Scorer, ...]:
    """The scorers of `specs`, in order. `options.settings` is the whole [reward] table: name to table.

    `pass_at` may stand in any reward's table. Raises: ConfigError (unknown name or setting, a file that
    does not import, a model-based reward without an engine).
    """
    names = [spec.name for spec in specs]
    if not names:
        raise ConfigError("no reward chosen; -r NAME chooses one")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"reward {name} is chosen twice; give it one weight")
    for name, table in options.settings.items():
        if name not in REWARDS and name not in names:
            raise ConfigError(f"reward.{name}: no such reward{nearest(name, {*REWARDS, *names})}")
        if not isinstance(table, dict):
            raise ConfigError(f"reward.{name}: expected a table of settings")
    return tuple(_build_one(spec, options, engine) for spec in specs)


def _build_one(spec: RewardSpec, options: RewardOptions, engine: Engine | None) -> Scorer:
    own = dict(options.settings.get(spec.name, {}))
    pass_at = own.pop("pass_at", 1.0)
    if isinstance(pass_at, bool) or not isinstance(pass_at, int | float) or not 0 <= pass_at <= 1:
        raise ConfigError(f"reward.{spec.name}.pass_at: {pass_at!r} is not a number in [0, 1]")
    options = msgspec.structs.replace(options, settings=own)
    if ".py:" in spec.name:
        scorer = outside.make(spec.name, options)
    elif spec.name in REWARDS:
        module, _, function = REWARDS[spec.name].partition(":")
        scorer = cast(Factory, getattr(importlib.import_module(module), function))(options, engine)
    else:
        raise ConfigError(f"no reward {spec.name!r}{nearest(spec.name, REWARDS)}")
    return msgspec.structs.replace(scorer, weight=spec.weight, pass_at=float(pass_at))


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
    if gate_on is not None and gate_on not in (names := [scorer.name for scorer in scorers]):
        raise ConfigError(f"--gate-on {gate_on}: not among the rewards scored{nearest(gate_on, names)}")
    columns = [_column(samples, scorer) for scorer in scorers]
    scored = [
        _with_rewards(sample, [column[i] for column in columns], scorers, gate_on)
        for i, sample in enumerate(samples)
    ]
    return [_inverted(sample) for sample in scored] if invert else scored


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
        return "no references"
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


class Tally:
    """Counts, means and corpus figures over windows of scored rows, in constant memory."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self._rows = 0
        self._composite = _Mean()
        self._means = {scorer.name: _Mean() for scorer in scorers}
        self._corpora: dict[str, CorpusFigure] = {s.name: s.corpus() for s in scorers if s.corpus}

    def add(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            self._rows += 1
            self._composite.add(sample.reward, None)
            for reward in sample.rewards:
                if reward.name in self._means:
                    self._means[reward.name].add(reward.value, reward.error)
                if reward.name in self._corpora and reward.value is not None:
                    self._corpora[reward.name].add(sample)

    def result(self) -> dict[str, Any]:
        """`rows`; `reward` (the composite) and `rewards` by name, each `mean` (null when nothing was
        scored), `scored`, `unscored`, `first_error`; `corpus` by name, `score` in the metric's own unit and
        `signature`."""
        figures = {name: corpus.result() for name, corpus in self._corpora.items()}
        return {
            "rows": self._rows,
            "reward": self._composite.result(),
            "rewards": {name: mean.result() for name, mean in self._means.items()},
            "corpus": {name: figure for name, figure in figures.items() if figure is not None},
        }


class _Mean:
    def __init__(self) -> None:
        self._sum = 0.0
        self._scored = 0
        self._unscored = 0
        self._first_error: str | None = None

    def add(self, value: float | None, error: str | None) -> None:
        if value is None:
            self._unscored += 1
            self._first_error = self._first_error or error
        else:
            self._scored += 1
            self._sum += value

    def result(self) -> dict[str, Any]:
        return {
            "mean": self._sum / self._scored if self._scored else None,
            "scored": self._scored,
            "unscored": self._unscored,
            "first_error": self._first_error,
        }


def summary(samples: Iterable[Sample], scorers: Sequence[Scorer]) -> dict[str, Any]:
    """`Tally` over rows that are all at hand."""
    tally = Tally(scorers)
    tally.add(samples)
    return tally.result()


def require_some_scored(result: dict[str, Any]) -> None:
    """Raises: DataError when there were rows and one of the rewards could be computed on none of them."""
    for name, mean in result["rewards"].items():
        if mean["unscored"] and not mean["scored"]:
            rows = "the only row" if mean["unscored"] == 1 else f"any of the {mean['unscored']} rows"
            raise DataError(f"reward {name} could not be computed on {rows}: {mean['first_error']}")


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
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{where}: {error}") from None
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
        raise DataError("the selftest has no prompt with both a good and a bad answer: nothing to compare")
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
                    problems.append(f"{good} (good) scores {high:.4g}, not above {bad} (bad) with {low:.4g}")
    return problems


def _selftest_sample(row: SelfTestRow, prompt: int) -> Sample:
    messages = (Message(role="user", content=row.prompt),) if isinstance(row.prompt, str) else row.prompt
    task = Task(id=f"selftest-{prompt}", prompt=messages, references=row.references, meta=row.meta)
    return Sample(id=row.where, task=task, text=row.text, critiques=row.critiques)


def _reasons(sample: Sample) -> str:
    return "; ".join(f"{reward.name}: {reward.error}" for reward in sample.rewards if reward.value is None)
