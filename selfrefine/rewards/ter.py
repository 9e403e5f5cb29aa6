"""ter: 1 - TER/100, at least 0. TER counts edits per reference word, so lower is better and it can pass 100.

Source: Snover et al. 2006; computed by sacreBLEU, whose signature is stored.
"""

from __future__ import annotations

from msgspec import Struct

from selfrefine.engines.base import Engine
from selfrefine.rewards.base import RewardOptions, Scorer, settings
from selfrefine.rewards.sacre import scorer


class TerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    normalized: bool = False
    case_sensitive: bool = False


def make(options: RewardOptions, engine: Engine | None = None) -> Scorer:
    from sacrebleu.metrics import TER

    chosen = settings("ter", options, TerSettings)

    def metric() -> TER:
        return TER(normalized=chosen.normalized, case_sensitive=chosen.case_sensitive)

    return scorer("ter", "TER", metric, lambda raw: 1 - min(raw, 100.0) / 100)
