"""chrf: sentence-level chrF2 / 100; `word_order = 2` makes it chrF++.

Source: Popovic 2015, 2017; computed by sacreBLEU, whose signature is stored.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer
from selfrefine.rewards.sacre import scorer


class ChrfSettings(Struct, frozen=True, forbid_unknown_fields=True):
    word_order: Annotated[int, Meta(ge=0, le=4, description="Longest word n-gram; 2 makes it chrF++.")] = 0
    lowercase: Annotated[bool, Meta(description="Compare without regard to case.")] = False


def make(own: ChrfSettings, options: RewardOptions) -> Scorer:
    from sacrebleu.metrics import CHRF

    def metric() -> CHRF:
        return CHRF(word_order=own.word_order, lowercase=own.lowercase)

    return scorer("chrf", "chrF", metric, lambda raw: raw / 100)


REWARD = RewardKind(
    name="chrf",
    about="sacreBLEU's chrF of the sentence, brought to 0 to 1",
    make=make,
    settings=ChrfSettings,
    needs_references=True,
    corpus=True,
    source="Popovic 2015, 2017",
)
