"""repetition: the share of distinct n-grams, so 1 - the share that repeats an earlier one.

Words are case-folded. An answer shorter than n words has nothing to repeat and gets 1: pair it with a reward
that asks for content.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each


class RepetitionSettings(Struct, frozen=True, forbid_unknown_fields=True):
    n: Annotated[int, Meta(ge=1, description="Words of an n-gram.")] = 3


def make(own: RepetitionSettings, options: RewardOptions) -> Scorer:
    n = own.n

    def score(sample: Sample) -> Reward:
        words = sample.text.casefold().split()
        total = max(0, len(words) - n + 1)
        distinct = len({tuple(words[i : i + n]) for i in range(total)})
        detail = f"{total - distinct} of {total} {n}-grams repeat"
        return checked("repetition", distinct / total if total else 1.0, detail, f"n:{n}")

    return Scorer(name="repetition", score=each(score))


REWARD = RewardKind(
    name="repetition",
    about="the share of distinct n-grams",
    make=make,
    settings=RepetitionSettings,
)
