"""length: how well the answer keeps to a length, in words or characters.

With `min`/`max`: 1 between them, falling in proportion outside (half of `min` is 0.5, half above `max` too).
With `target`: 1 at the target, 0 at nothing and at twice the target, linear between.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from selfrefine.engines.base import Engine
from selfrefine.errors import ConfigError
from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardOptions, Scorer, checked, each, settings

Positive = Annotated[int, Meta(ge=1)]


class LengthSettings(Struct, frozen=True, forbid_unknown_fields=True):
    min: Positive | None = None
    max: Positive | None = None
    target: Positive | None = None
    unit: Literal["words", "chars"] = "words"


def make(options: RewardOptions, engine: Engine | None = None) -> Scorer:
    chosen = settings("length", options, LengthSettings)
    low, high, target, unit = chosen.min, chosen.max, chosen.target, chosen.unit
    if (target is None) == (low is None and high is None):
        raise ConfigError("reward.length needs either target, or min and/or max")
    if low is not None and high is not None and low > high:
        raise ConfigError(f"reward.length: min {low} is above max {high}")
    wanted = "|".join(f"{k}:{getattr(chosen, k)}" for k in ("min", "max", "target") if getattr(chosen, k))

    def score(sample: Sample) -> Reward:
        n = len(sample.text.split()) if unit == "words" else len(sample.text)
        if target is not None:
            value = max(0.0, 1 - abs(n - target) / target)
        elif low is not None and n < low:
            value = n / low
        elif high is not None and n > high:
            value = max(0.0, 1 - (n - high) / high)
        else:
            value = 1.0
        return checked("length", value, f"{n} {unit}", f"unit:{unit}|{wanted}")

    return Scorer(name="length", score=each(score))
