"""regex: 1 when the pattern is found in the answer.

`pattern` from the settings; without one every reference is a pattern and any of them may match. Patterns are
Python's `re`, which backtracks: one with nested repetition can take very long on a hostile answer.
"""

from __future__ import annotations

import re

from msgspec import Struct

from selfrefine.engines.base import Engine
from selfrefine.errors import ConfigError
from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardOptions, Scorer, checked, each, settings, unscored


class RegexSettings(Struct, frozen=True, forbid_unknown_fields=True):
    pattern: str | None = None
    ignore_case: bool = False
    full: bool = False
    """The whole answer must match, white space around it aside."""


def make(options: RewardOptions, engine: Engine | None = None) -> Scorer:
    chosen = settings("regex", options, RegexSettings)
    flags = re.IGNORECASE if chosen.ignore_case else re.NOFLAG
    signature = f"re:{'full' if chosen.full else 'search'}|case:{'lc' if chosen.ignore_case else 'mixed'}"
    if chosen.pattern is not None:
        try:
            re.compile(chosen.pattern)
        except re.error as error:
            raise ConfigError(f"reward.regex.pattern: {error}") from None

    def score(sample: Sample) -> Reward:
        patterns = sample.task.references if chosen.pattern is None else (chosen.pattern,)
        try:
            compiled = [re.compile(pattern, flags) for pattern in patterns]
        except re.error as error:
            return unscored("regex", f"a reference is not a regular expression: {error.msg}", signature)
        text = sample.text.strip()
        hit = any(p.fullmatch(text) if chosen.full else p.search(text) for p in compiled)
        return checked("regex", hit, None if hit else "the pattern is not in the answer", signature)

    return Scorer(name="regex", score=each(score), needs_references=chosen.pattern is None)
