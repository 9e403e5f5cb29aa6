"""The contracts of a reward, and the one place where outside code's result is checked.

    RewardFn       (sample) -> Reward                     most of them
    GroupRewardFn  (samples of one prompt) -> [Reward]    majority vote, length against the group
    BatchRewardFn  (samples) -> [Reward]                  those that ask a model

All three are brought to BatchRewardFn by `steps.reward`. A reward that cannot be computed is
`unscored(...)`: null with a reason, never 0, because in self-training a false 0 is a lesson learnt wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from selfrefine.records import Reward, Sample

RewardFn = Callable[[Sample], Reward]
GroupRewardFn = Callable[[Sequence[Sample]], list[Reward]]
BatchRewardFn = Callable[[Sequence[Sample]], list[Reward]]


class RewardSpec(Struct, frozen=True, kw_only=True):
    """One `-r NAME[:weight]`. `name` is a registry name or `path/to/file.py:function`."""

    name: str
    weight: float = 1.0


class RewardOptions(Struct, frozen=True, kw_only=True):
    """What a factory may use to build a reward; `settings` is the config's [reward.NAME] table."""

    seed: int = 0
    settings: dict[str, Any] = {}


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
