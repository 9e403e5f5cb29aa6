"""What can be counted about the answers to a slice's tasks without a model: the evidence beside a cause.

Figures only, of answers that are there already. A reference is compared with and never shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from statistics import median
from typing import get_args

from msgspec import Struct

from selfrefine.records import Count, Sample
from selfrefine.reflection.failures import failed, kind_of
from selfrefine.reflection.findings import FailureKind
from selfrefine.reflection.slices import numbers, question
from selfrefine.rewards.numbers import last_number
from selfrefine.steps.critique_outcome import RIGHT

_NUMBERS = 20
"""Numbers of a question that an answer may have been copied from; among more, one is met by chance."""


class Numbers(Struct, frozen=True, kw_only=True):
    """Failed answers to tasks whose reference is a number, by how they miss it. Shares are of `read`."""

    read: Count
    """Failed answers with a number that can be read, where the reference's can be read too."""
    unread: Count
    """Those whose number cannot be read, or that have none."""
    error: float | None
    """Median absolute error."""
    off_by_one: float | None
    off_by_ten: float | None
    sign: float | None
    """Right but for the sign."""
    copied: float | None
    """Equal to one of the numbers in the question."""


class Evidence(Struct, frozen=True, kw_only=True):
    """Of one split's answers to one slice's tasks."""

    answers: Count
    failed: Count
    kinds: dict[FailureKind, Count]
    """Failed answers by kind, the most frequent first."""
    length_right: float | None
    """Mean length of the answers that did not fail, in `unit`."""
    length_wrong: float | None
    unit: str
    """`tokens`, or `words` where an answer has no token ids."""
    numbers: Numbers | None
    """null where no failed answer's reference is a number."""


def count(rows: Sequence[Sample], passing: float = RIGHT) -> Evidence:
    """Counts scored answers; those that nobody has scored are left out."""
    judged = [row for row in rows if row.reward is not None or failed(row, passing)]
    kinds = {row.id: kind for row in judged if (kind := kind_of(row, passing)) is not None}
    wrong = [row for row in judged if row.id in kinds]
    right = [row for row in judged if row.id not in kinds]
    by_tokens = all(row.token_ids for row in judged)
    order = get_args(FailureKind)
    found = sorted(Counter(kinds.values()).items(), key=lambda item: (-item[1], order.index(item[0])))
    return Evidence(
        answers=len(judged),
        failed=len(wrong),
        kinds=dict(found),
        length_right=_length(right, by_tokens),
        length_wrong=_length(wrong, by_tokens),
        unit="tokens" if by_tokens else "words",
        numbers=_numbers(wrong),
    )


def _length(rows: Iterable[Sample], by_tokens: bool) -> float | None:
    lengths = [len(row.token_ids) if by_tokens else len(row.text.split()) for row in rows]
    return sum(lengths) / len(lengths) if lengths else None


def _numbers(wrong: Sequence[Sample]) -> Numbers | None:
    pairs: list[tuple[Fraction, Fraction, set[Fraction]]] = []
    unread = 0
    for row in wrong:
        if not row.task.references or (wanted := _value(_after_marks(row.task.references[0]))) is None:
            continue
        if (given := _value(row.text)) is None:
            unread += 1
        else:
            pairs.append((given, wanted, _asked(row)))
    if not pairs and not unread:
        return None

    def share(holds: Callable[[Fraction, Fraction, set[Fraction]], bool]) -> float | None:
        return sum(holds(*pair) for pair in pairs) / len(pairs) if pairs else None

    return Numbers(
        read=len(pairs),
        unread=unread,
        error=_finite(median(abs(given - wanted) for given, wanted, _ in pairs)) if pairs else None,
        off_by_one=share(lambda given, wanted, _: abs(given - wanted) == 1),
        off_by_ten=share(lambda given, wanted, _: abs(given - wanted) == 10),
        sign=share(lambda given, wanted, _: wanted != 0 and given == -wanted),
        copied=share(lambda given, _, asked: given in asked),
    )


def _after_marks(reference: str) -> str:
    return reference.rpartition("####")[2]


def _value(text: str) -> Fraction | None:
    found = last_number(text)
    return None if found is None else found.value


def _asked(row: Sample) -> set[Fraction]:
    """The numbers of the question, each read by itself: as an operand and without its sign."""
    return {value for one in numbers(question(row.task))[:_NUMBERS] if (value := _value(one)) is not None}


def _finite(value: Fraction) -> float | None:
    """null where it is too large for a float: 300 digits times 300 digits."""
    try:
        return float(value)
    except OverflowError:
        return None
