"""bleu: sentence-level BLEU / 100, with effective order (short answers have no 4-grams).

Source: Papineni et al. 2002; computed by sacreBLEU (Post 2018), whose signature is stored.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from selfrefine.engines.base import Engine
from selfrefine.rewards.base import RewardOptions, Scorer, settings
from selfrefine.rewards.sacre import scorer


class BleuSettings(Struct, frozen=True, forbid_unknown_fields=True):
    tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a"
    lowercase: bool = False


def make(options: RewardOptions, engine: Engine | None = None) -> Scorer:
    from sacrebleu.metrics import BLEU

    chosen = settings("bleu", options, BleuSettings)

    def metric() -> BLEU:
        return BLEU(effective_order=True, tokenize=chosen.tokenize, lowercase=chosen.lowercase)

    return scorer("bleu", "BLEU", metric, lambda raw: raw / 100)
