"""numeric: 1 when the last number of the answer equals the reference's number.

Lenient on form, strict on value: `-1,234.50`, `$12`, `+7`, `3/4`, `\\frac{3}{4}`, `1.5e3` and the typographic
minus are read and compared as exact fractions. A minus is a sign only where nothing stands before it that
could be subtracted from, so "7-3" ends in 3. Not read: number words, mixed numbers ("1 1/2" is 1/2).
A reference in GSM8K's form counts from its last `####` on.
"""

from __future__ import annotations

import re
from collections import deque
from fractions import Fraction
from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each, unscored

SIGNATURE = "extract:last-number|compare:fraction"
_MAX_DIGITS = 300  # int() refuses more than 4,300 digits and takes quadratic time before that
_FRAC = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\]}-])[-+])?[$€£]?"
    r"(?P<body>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?:[eE](?P<exp>[-+]?\d{1,3})(?!\w)|/(?P<below>\d+(?:\.\d+)?))?"
)


class NumericSettings(Struct, frozen=True, forbid_unknown_fields=True):
    tolerance: Annotated[
        float, Meta(ge=0.0, description="Largest difference that still counts as equal.")
    ] = 0.0


def last_number_text(text: str) -> str | None:
    """The last number as plain text (no commas, currency or plus sign), or None. `3/4` stays a fraction."""
    text = _FRAC.sub(r"\1/\2", text.replace("\u2212", "-").replace("\\$", "$"))
    found = deque(_NUMBER.finditer(text), maxlen=1)
    if not found:
        return None
    last = found[0]
    sign = "-" if last["sign"] == "-" else ""
    tail = f"e{last['exp']}" if last["exp"] else f"/{last['below']}" if last["below"] else ""
    return f"{sign}{last['body'].replace(',', '')}{tail}"


def last_number(text: str) -> Fraction | None:
    """The value of the last number in `text`, or None where there is none (or it divides by zero)."""
    found = last_number_text(text)
    if found is None or len(found) > _MAX_DIGITS:
        return None
    above, _, below = found.partition("/")
    divisor = Fraction(below or 1)
    return Fraction(above) / divisor if divisor else None


def make(own: NumericSettings, options: RewardOptions) -> Scorer:
    signature = SIGNATURE + (f"|tol:{own.tolerance:g}" if own.tolerance else "")

    def score(sample: Sample) -> Reward:
        wanted = [last_number(reference.rpartition("####")[2]) for reference in sample.task.references]
        numbers = [number for number in wanted if number is not None]
        if not numbers:
            return unscored("numeric", "no reference has a number", signature)
        answer = last_number(sample.text)
        if answer is None:
            return checked("numeric", 0.0, "no number in the answer", signature)
        hit = any(abs(answer - number) <= own.tolerance for number in numbers)
        detail = None if hit else f"the number {last_number_text(sample.text)} is wrong"
        return checked("numeric", hit, detail, signature)

    return Scorer(name="numeric", score=each(score))


REWARD = RewardKind(
    name="numeric",
    about="is the answer's last number the reference's (after the last `####`, if any)",
    make=make,
    settings=NumericSettings,
    needs_references=True,
)
