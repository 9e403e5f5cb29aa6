"""bleu: sentence-level BLEU / 100, with effective order (short answers have no 4-grams).

Source: Papineni et al. 2002; computed by sacreBLEU (Post 2018), whose signature is stored.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer
from selfrefine.rewards.sacre import scorer


class BleuSettings(Struct, frozen=True, forbid_unknown_fields=True):
    tokenize: Annotated[
        Literal["13a", "intl", "char", "zh", "none"], Meta(description="sacreBLEU's tokeniser.")
    ] = "13a"
    lowercase: Annotated[bool, Meta(description="Compare without regard to case.")] = False


def make(own: BleuSettings, options: RewardOptions) -> Scorer:
    from sacrebleu.metrics import BLEU

    def metric() -> BLEU:
        return BLEU(effective_order=True, tokenize=own.tokenize, lowercase=own.lowercase)

    return scorer("bleu", "BLEU", metric, lambda raw: raw / 100)


REWARD = RewardKind(
    name="bleu",
    about="sacreBLEU's BLEU of the sentence, brought to 0 to 1",
    make=make,
    settings=BleuSettings,
    needs_references=True,
    corpus=True,
    source="Papineni et al. 2002",
)
