"""chrf: sentence-level chrF2 / 100; `word_order = 2` makes it chrF++.

Source: Popovic 2015, 2017; computed by sacreBLEU, whose signature is stored.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.engines.base import Engine
from selfrefine.rewards.base import RewardOptions, Scorer, settings
from selfrefine.rewards.sacre import scorer


class ChrfSettings(Struct, frozen=True, forbid_unknown_fields=True):
    word_order: Annotated[int, Meta(ge=0, le=4)] = 0
    lowercase: bool = False


def make(options: RewardOptions, engine: Engine | None = None) -> Scorer:
    from sacrebleu.metrics import CHRF

    chosen = settings("chrf", options, ChrfSettings)

    def metric() -> CHRF:
        return CHRF(word_order=chosen.word_order, lowercase=chosen.lowercase)

    return scorer("chrf", "chrF", metric, lambda raw: raw / 100)
