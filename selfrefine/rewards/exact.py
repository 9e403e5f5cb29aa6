"""exact: 1 when the answer is one of the references, character for character.

Both sides are brought to Unicode NFC and runs of white space to one space, so that an invisible difference
does not count; `ignore_case` compares case-folded. An empty reference is none.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each


class ExactSettings(Struct, frozen=True, forbid_unknown_fields=True):
    ignore_case: Annotated[bool, Meta(description="Ignore case.")] = False


def make(own: ExactSettings, options: RewardOptions) -> Scorer:
    signature = f"norm:nfc+space|case:{'lc' if own.ignore_case else 'mixed'}"

    def normal(text: str) -> str:
        text = " ".join(unicodedata.normalize("NFC", text).split())
        return text.casefold() if own.ignore_case else text

    def score(sample: Sample) -> Reward:
        hit = normal(sample.text) in {normal(reference) for reference in sample.task.references} - {""}
        return checked("exact", hit, None if hit else "not an exact match", signature)

    return Scorer(name="exact", score=each(score))


REWARD = RewardKind(
    name="exact",
    about="1 if the answer equals a reference, white space aside",
    make=make,
    settings=ExactSettings,
    needs_references=True,
)
