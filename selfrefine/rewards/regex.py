"""regex: 1 when the pattern is found in the answer.

`pattern` from the settings; without one every reference is a pattern and any of them may match. Patterns are
Python's `re`, which backtracks: one with nested repetition can take very long on a hostile answer.
"""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.errors import ConfigError
from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each, unscored


class RegexSettings(Struct, frozen=True, forbid_unknown_fields=True):
    pattern: Annotated[
        str | None, Meta(description="Regular expression to search for. Not set: each reference is one.")
    ] = None
    ignore_case: Annotated[bool, Meta(description="Ignore case.")] = False
    full: Annotated[bool, Meta(description="Match the whole answer, ignoring white space around it.")] = False


def make(own: RegexSettings, options: RewardOptions) -> Scorer:
    flags = re.IGNORECASE if own.ignore_case else re.NOFLAG
    signature = f"re:{'full' if own.full else 'search'}|case:{'lc' if own.ignore_case else 'mixed'}"
    if own.pattern is not None:
        try:
            re.compile(own.pattern)
        except re.error as error:
            raise ConfigError(f"reward.regex.pattern: {error}") from None

    def score(sample: Sample) -> Reward:
        references = filter(str.strip, sample.task.references)  # an empty pattern would match anything
        patterns = references if own.pattern is None else (own.pattern,)
        try:
            compiled = [re.compile(pattern, flags) for pattern in patterns]
        except re.error as error:
            return unscored("regex", f"a reference is not a regular expression: {error.msg}", signature)
        text = sample.text.strip()
        hit = any(p.fullmatch(text) if own.full else p.search(text) for p in compiled)
        return checked("regex", hit, None if hit else "the pattern does not match", signature)

    return Scorer(name="regex", score=each(score))


REWARD = RewardKind(
    name="regex",
    about="1 if the pattern, or a reference used as one, matches the answer",
    make=make,
    settings=RegexSettings,
    needs_references=lambda own: own.pattern is None,
)
