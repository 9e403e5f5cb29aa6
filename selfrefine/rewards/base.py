"""The contracts of a reward, and the one place where outside code's result is checked.

    RewardFn       (sample) -> Reward                     most of them
    GroupRewardFn  (samples of one prompt) -> [Reward]    majority vote, length against the group
    BatchRewardFn  (samples) -> [Reward]                  those that ask a model

A factory brings the first two to the third with `each` and `each_group`, so that `steps.reward` knows one
shape only. A reward that cannot be computed is `unscored(...)`: null with a reason, never 0, because in
self-training a false 0 is a lesson learnt wrongly.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from selfrefine.errors import ConfigError
from selfrefine.records import Reward, Sample, groups

RewardFn = Callable[[Sample], Reward]
GroupRewardFn = Callable[[Sequence[Sample]], list[Reward]]
BatchRewardFn = Callable[[Sequence[Sample]], list[Reward]]


class RewardSpec(Struct, frozen=True, kw_only=True):
    """One `-r NAME[:weight]`. `name` is a registry name or `path/to/file.py:function`; weight > 0."""

    name: str
    weight: float = 1.0


class RewardOptions(Struct, frozen=True, kw_only=True):
    """What a factory may use to build a reward.

    `settings` is the config's [reward.NAME] table for a factory; `steps.reward.build` takes the whole
    [reward] table, name to table, and hands each factory its own.
    """

    seed: int = 0
    settings: dict[str, Any] = {}
    reveal_references: bool = False
    """Details may name references (concepts that stand only there); off unless the user asked."""


class CorpusScore(Struct, frozen=True, kw_only=True):
    """A figure of all rows together, in the metric's own unit."""

    score: float
    signature: str


class CorpusFigure(Protocol):
    """A figure of all rows together (corpus BLEU is not the mean of sentence BLEU), from sums over them."""

    def statistics(self, sample: Sample) -> Sequence[float]:
        """What one answer adds to the corpus: a fixed number of sums."""

    def score(self, sums: Sequence[float]) -> float:
        """The figure of such sums, brought to [0, 1], higher is better."""

    def result(self, sums: Sequence[float], references: Mapping[int, int]) -> CorpusScore:
        """The figure itself; `references`: how many rows have how many references."""


class Scorer(Struct, frozen=True, kw_only=True):
    """A reward, ready to run. `score` answers one Reward per sample, in order."""

    name: str
    score: BatchRewardFn
    needs_references: bool = False
    corpus: Callable[[], CorpusFigure] | None = None
    weight: float = 1.0
    pass_at: float = 1.0
    """From this value on the reward passes as a gate (`--gate-on`)."""


def each(score: RewardFn) -> BatchRewardFn:
    return lambda samples: [score(sample) for sample in samples]


def each_group(score: GroupRewardFn) -> BatchRewardFn:
    """Runs `score` once per task and puts the results back into row order."""

    def run(samples: Sequence[Sample]) -> list[Reward]:
        by_task = {group[0].task.id: iter(_aligned(score(group), len(group))) for group in groups(samples)}
        return [next(by_task[sample.task.id]) for sample in samples]

    return run


def _aligned(rewards: list[Reward], n: int) -> list[Reward]:
    if len(rewards) != n:
        raise ValueError(f"a group reward answered {len(rewards)} values for {n} samples")
    return rewards


def unscored(name: str, why: str, signature: str = "") -> Reward:
    """A score that could not be computed: null, with the reason."""
    return Reward(name=name, value=None, error=why, signature=signature)


def checked(name: str, value: float, detail: str | None = None, signature: str = "") -> Reward:
    """A Reward with its range checked: what is not a finite number in [0, 1] is unscored."""
    if isinstance(value, bool):
        value = float(value)
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0.0 <= value <= 1.0:
        return unscored(name, f"value {value!r} is not a number in [0, 1]", signature)
    return Reward(name=name, value=float(value), detail=detail, signature=signature)


Settings = TypeVar("Settings", bound=Struct)


def settings(name: str, options: RewardOptions, kind: type[Settings]) -> Settings:
    """The [reward.NAME] table as a checked struct. Raises: ConfigError, with the nearest known key."""
    known = kind.__struct_fields__
    for key in options.settings:
        if key not in known:
            raise ConfigError(f"reward.{name}: unknown setting {key!r}{nearest(key, known)}")
    try:
        return msgspec.convert(options.settings, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"reward.{name}: {error}") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error sentence: what was probably meant, and what there is."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{meant} (known: {', '.join(choices) or 'none'})"
