"""numeric: 1 when the last number of the answer equals the reference's number.

Lenient on form, strict on value: numbers are compared as exact fractions. `numbers.py` has the table of what
is read. What is not read is not guessed: the row is unscored, and the reason says whether the answer or a
reference was the trouble. An answer without any number is wrong. `50%` and `50` are equal; `50%` against
`0.5` is unscored. Of several references one that is equal is enough. A reference in GSM8K's form counts from
its last `####` on. For expressions there is the reward `math`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each, unscored
from selfrefine.rewards.numbers import Number, last_number

SIGNATURE = "extract:last-number|compare:fraction|v:2"


class NumericSettings(Struct, frozen=True, forbid_unknown_fields=True):
    tolerance: Annotated[
        float, Meta(ge=0.0, description="Largest difference that still counts as equal.")
    ] = 0.0


def make(own: NumericSettings, options: RewardOptions) -> Scorer:
    signature = SIGNATURE + (f"|tol:{own.tolerance:g}" if own.tolerance else "")

    def score(sample: Sample) -> Reward:
        found = [last_number(reference.rpartition("####")[2]) for reference in sample.task.references]
        wanted = [number for number in found if number is not None and number.text]
        if not wanted:
            return unscored("numeric", "no reference has a number", signature)
        answer = last_number(sample.text)
        if answer is None:
            return checked("numeric", 0.0, "no number in the answer", signature)
        if answer.value is None:
            return unscored("numeric", f"cannot read the number in the answer: {answer.why}", signature)
        if any(_equal(answer, number, own.tolerance) for number in wanted):
            return checked("numeric", 1.0, None, signature)
        for number in wanted:
            if number.value is None:
                return unscored("numeric", f"cannot read the number in a reference: {number.why}", signature)
            if answer.percent != number.percent and _equal(_plain(answer), _plain(number), own.tolerance):
                return unscored("numeric", "one side is a percentage, the other a plain number", signature)
        return checked("numeric", 0.0, f"the number {answer.text} is wrong", signature)

    return Scorer(name="numeric", score=each(score))


def _equal(one: Number, other: Number, tolerance: float) -> bool:
    return one.value is not None and other.value is not None and abs(one.value - other.value) <= tolerance


def _plain(number: Number) -> Number:
    """50% as 1/2."""
    if number.percent and number.value is not None:
        return number._replace(value=number.value / 100)
    return number


REWARD = RewardKind(
    name="numeric",
    about="1 if the answer's last number equals the reference's (after its last `####`, if any)",
    make=make,
    settings=NumericSettings,
    needs_references=True,
)
