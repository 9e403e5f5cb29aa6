"""length: how well the answer keeps to a length, in words or characters.

With `min`/`max`: 1 between them, falling in proportion outside (half of `min` is 0.5, half above `max` too).
With `target`: 1 at the target, 0 at nothing and at twice the target, linear between. Words are what stands
between spaces: an answer in a script without them is unscored where words are counted.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from selfrefine.errors import ConfigError
from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each, unscored
from selfrefine.rewards.scripts import unspaced

Positive = Annotated[int, Meta(ge=1)]


class LengthSettings(Struct, frozen=True, forbid_unknown_fields=True):
    min: Annotated[Positive | None, Meta(description="Shortest length that gets 1.")] = None
    max: Annotated[Positive | None, Meta(description="Longest length that gets 1.")] = None
    target: Annotated[Positive | None, Meta(description="Length that gets 1.")] = None
    unit: Annotated[Literal["words", "chars"], Meta(description="Unit of the length.")] = "words"


def make(own: LengthSettings, options: RewardOptions) -> Scorer:
    low, high, target, unit = own.min, own.max, own.target, own.unit
    if (target is None) == (low is None and high is None):
        raise ConfigError("reward.length needs either target, or min and/or max")
    if low is not None and high is not None and low > high:
        raise ConfigError(f"reward.length: min {low} is above max {high}")
    wanted = "|".join(f"{k}:{getattr(own, k)}" for k in ("min", "max", "target") if getattr(own, k))

    def score(sample: Sample) -> Reward:
        if unit == "words" and unspaced(sample.text):
            return unscored(
                "length", "the answer has no spaces between words; set reward.length.unit to chars"
            )
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


REWARD = RewardKind(
    name="length",
    about="how close the answer is to the wanted length",
    make=make,
    settings=LengthSettings,
)
