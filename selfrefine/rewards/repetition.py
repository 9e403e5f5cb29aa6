"""repetition: share of n-grams that are distinct, so 1 - the share that repeats an earlier one.

Words are case-folded; an answer in a script without spaces between words is unscored where words are counted.
An answer shorter than n words has nothing to repeat and gets 1: pair it with a reward
that asks for content.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each, unscored
from selfrefine.rewards.scripts import unspaced


class RepetitionSettings(Struct, frozen=True, forbid_unknown_fields=True):
    n: Annotated[int, Meta(ge=1, description="Length of an n-gram, in `unit`.")] = 3
    unit: Annotated[Literal["words", "chars"], Meta(description="What n-grams are made of.")] = "words"


def repeated(text: str, n: int = 3) -> float:
    """Share of n-grams that repeat an earlier one, in [0, 1]; of characters where no spaces part words."""
    folded = text.casefold()
    words = list(folded) if unspaced(folded) else folded.split()
    total = len(words) - n + 1
    if total < 1:
        return 0.0
    return 1 - len({tuple(words[i : i + n]) for i in range(total)}) / total


def make(own: RepetitionSettings, options: RewardOptions) -> Scorer:
    n = own.n
    signature = f"n:{n}" + ("" if own.unit == "words" else f"|unit:{own.unit}")

    def score(sample: Sample) -> Reward:
        text = sample.text.casefold()
        if own.unit == "words" and unspaced(text):
            why = "the answer has no spaces between words; set reward.repetition.unit to chars"
            return unscored("repetition", why)
        words = text.split() if own.unit == "words" else [c for c in text if not c.isspace()]
        total = max(0, len(words) - n + 1)
        distinct = len({tuple(words[i : i + n]) for i in range(total)})
        detail = f"{total - distinct} of {total} {n}-grams repeat"
        return checked("repetition", distinct / total if total else 1.0, detail, signature)

    return Scorer(name="repetition", score=each(score))


REWARD = RewardKind(
    name="repetition",
    about="share of n-grams that are distinct",
    make=make,
    settings=RepetitionSettings,
)
