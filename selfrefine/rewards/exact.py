"""exact: 1 when the answer is one of the references, character for character.

Both sides are brought to Unicode NFC and runs of white space to one space, so that an invisible difference
does not count; `ignore_case` compares case-folded.
"""

from __future__ import annotations

import unicodedata

from msgspec import Struct

from selfrefine.engines.base import Engine
from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardOptions, Scorer, checked, each, settings


class ExactSettings(Struct, frozen=True, forbid_unknown_fields=True):
    ignore_case: bool = False


def make(options: RewardOptions, engine: Engine | None = None) -> Scorer:
    ignore_case = settings("exact", options, ExactSettings).ignore_case
    signature = f"norm:nfc+space|case:{'lc' if ignore_case else 'mixed'}"

    def normal(text: str) -> str:
        text = " ".join(unicodedata.normalize("NFC", text).split())
        return text.casefold() if ignore_case else text

    def score(sample: Sample) -> Reward:
        hit = normal(sample.text) in {normal(reference) for reference in sample.task.references}
        return checked("exact", hit, None if hit else "not an exact match", signature)

    return Scorer(name="exact", score=each(score), needs_references=True)
