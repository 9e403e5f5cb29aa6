"""ter: 1 - TER/100, at least 0. TER counts edits per reference word, so lower is better and it can pass 100.

Source: Snover et al. 2006; computed by sacreBLEU, whose signature is stored.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer
from selfrefine.rewards.sacre import scorer


class TerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    normalized: Annotated[bool, Meta(description="Tokenise and normalise as TERCOM does.")] = False
    case_sensitive: Annotated[bool, Meta(description="A difference of case is an edit.")] = False


def make(own: TerSettings, options: RewardOptions) -> Scorer:
    from sacrebleu.metrics import TER

    def metric() -> TER:
        return TER(normalized=own.normalized, case_sensitive=own.case_sensitive)

    return scorer("ter", "TER", metric, lambda raw: 1 - min(raw, 100.0) / 100)


REWARD = RewardKind(
    name="ter",
    about="1 - sacreBLEU's TER of the sentence, at least 0",
    make=make,
    settings=TerSettings,
    needs_references=True,
    corpus=True,
    source="Snover et al. 2006",
)
