"""The contracts of a reward, and the one place where outside code's result is checked.

    RewardFn       (sample) -> Reward                     most of them
    GroupRewardFn  (samples of one prompt) -> [Reward]    majority vote, length against the group
    BatchRewardFn  (samples) -> [Reward]                  those that ask a model

A reward's file ends in a `RewardKind`: what it says of itself, and `make`, which brings the first two to the
third with `each` and `each_group`, so that `steps.reward` knows one shape only. A reward that cannot be
computed is `unscored(...)`: null with a reason, never 0, because in self-training a false 0 is a lesson
learnt wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from msgspec import UNSET, Meta, Struct, UnsetType

from selfrefine.records import Reward, Sample, groups
from selfrefine.registry import BUILT_IN, NoSettings, Origin, converted, outside_code

if TYPE_CHECKING:  # a reward that asks no model knows nothing of engines
    from selfrefine.engines.base import Engine

RewardFn = Callable[[Sample], Reward]
GroupRewardFn = Callable[[Sequence[Sample]], list[Reward]]
BatchRewardFn = Callable[[Sequence[Sample]], list[Reward]]

WITHHELD = "(withheld: it contains a reference)"
"""In place of such a detail."""


class RewardSpec(Struct, frozen=True, kw_only=True):
    """One `-r NAME[:weight]`. `name` is a registry name or `path/to/file.py:function`; weight > 0."""

    name: str
    weight: float = 1.0


class Limits(Struct, frozen=True, kw_only=True):
    """What a process that scores may take."""

    memory_gib: float
    """Address space."""
    cpu_s: float
    """CPU time of one call, of all its threads together."""


class RewardOptions(Struct, frozen=True, kw_only=True):
    """What all rewards of a command share. `settings` is the [reward] table: reward to its own settings."""

    seed: int = 0
    settings: dict[str, dict[str, Any]] = {}
    reveal_references: bool = False
    """Details may name references; off unless the user asked."""
    engine: Engine | None = None
    """The policy, for kinds with `needs_engine`; for the others there may be none."""
    timeout_s: float | None = None
    """How long one call of outside code may take; None: as long as it likes."""
    isolate: Limits | None = None
    """Outside code scores in a process of its own, with these limits."""
    prompts: Path | None = None
    """A run's folder of templates: its own copies count (`RewardKind.asks`)."""
    texts: bool = False
    """A function may return a text: what is wrong with the answer, empty where nothing is. It criticises."""


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


class RewardKind(Struct, frozen=True, kw_only=True):
    """What a reward says of itself.

    `make(settings, options)` builds it. Its settings arrive checked, as a `settings` struct; every field of
    that has a `Meta(description=...)`. Where `needs_engine` holds, `options.engine` is there.
    """

    name: str
    about: str
    """What it asks of an answer, in a line."""
    make: Callable[[Any, RewardOptions], Scorer]
    settings: type[Struct] = NoSettings
    needs_engine: bool = False
    needs_references: bool | Callable[[Any], bool] = False
    """Or a function of its settings. Rows without references are unscored, with that reason."""
    asks: Callable[[Any], dict[str, str]] = lambda own: {}
    """From its settings: the templates that it asks the model by, kind (`prompts.TEMPLATES`) to name or path.
    A run keeps a copy of each as KIND.md."""
    judge: Literal["outside", "policy", "round-0"] = "outside"
    """Whose judgement it is. Other than outside, a gain in it is no measured improvement; the policy's own
    judgement also guards against nothing."""
    corpus: bool = False
    """It has a figure of all rows together (`Scorer.corpus`), and needs no model."""
    why_no_measure: str = ""
    """Why it cannot measure held-out answers; empty where it can."""
    source: str = ""
    """The paper or program it is from."""
    origin: Origin = BUILT_IN

    def wants_references(self, own: Any) -> bool:
        """Raises: ConfigError where a plugin's own function fails."""
        with outside_code("reward", self.name, self.origin):
            needed = self.needs_references
            return bool(needed(own) if callable(needed) else needed)


class Each(Struct, frozen=True):
    """A `RewardFn` as a `BatchRewardFn`, row by row."""

    one: RewardFn

    def __call__(self, samples: Sequence[Sample]) -> list[Reward]:
        return [self.one(sample) for sample in samples]


class EachGroup(Struct, frozen=True):
    """A `GroupRewardFn` as a `BatchRewardFn`: called once per task, its results in row order."""

    group: GroupRewardFn

    def __call__(self, samples: Sequence[Sample]) -> list[Reward]:
        by_task = {one[0].task.id: iter(self.group(one)) for one in groups(samples)}
        return [next(by_task[sample.task.id]) for sample in samples]


each, each_group = Each, EachGroup


def unscored(name: str, why: str, signature: str = "") -> Reward:
    """A score that could not be computed: null, with the reason."""
    return Reward(name=name, value=None, error=why, signature=signature)


def checked(
    name: str, value: float, detail: str | None = None, signature: str = "", *, keep: int | UnsetType = UNSET
) -> Reward:
    """A Reward with its range checked: what is not a finite number in [0, 1] is unscored. `keep`: how many
    characters stand before the first fault."""
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0.0 <= value <= 1.0:
        return unscored(name, f"value {value!r} is not a number in [0, 1]", signature)
    return Reward(name=name, value=float(value), detail=detail, signature=signature, keep=keep)


Share = Annotated[float, Meta(ge=0.0, le=1.0)]


def own_settings(kind: RewardKind, table: dict[str, Any]) -> tuple[Any, float]:
    """A reward's [reward.NAME] table as its struct, and `pass_at`, which any of them may have.

    Raises: ConfigError naming the key, and the nearest known one.
    """
    own, where = dict(table), f"reward.{kind.name}"
    shared = {key: own.pop(key) for key in ("pass_at",) if key in own}
    return converted(where, own, kind.settings), converted(where, shared, PassAt).pass_at


class PassAt(Struct, frozen=True):
    """What any reward's table may have besides its own settings."""

    pass_at: Annotated[
        Share, Meta(description="Lowest value that passes when it is the gate (`reward.gate_on`).")
    ] = 1.0
