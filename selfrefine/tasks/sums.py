"""The family `sums`: sums and differences of whole numbers, such as gym:chain_sum asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.errors import ConfigError
from selfrefine.records import Task
from selfrefine.tasks.families import FamilyKind, Read, asked_like, question

_Bound = Annotated[int, Meta(ge=1, le=12)] | None


class SumsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    min_terms: Annotated[_Bound, Meta(description="Fewest numbers. Not set: as in the training tasks.")] = (
        None
    )
    max_terms: Annotated[_Bound, Meta(description="Most numbers. Not set: as in the training tasks.")] = None
    max_digits: Annotated[
        _Bound, Meta(description="Most digits of a number. Not set: as in the training tasks.")
    ] = None


# With the minus signs that people and models write.
_SUM = re.compile(r"\d+(?:\s*[-+−–]\s*\d+)+")
_AROUND = re.compile(r"(?<!\w)[\d.,*/×÷^%()\s+−–-]+(?!\w)")
"""A stretch of arithmetic. Only as a whole it is a sum: in "2 * 3 + 4" and "1.5 + 2" stands one of others."""
_MARK = re.compile(r"\A\s*(?:[-*•]|\d+[.)])\s+")
"""Of a list, before its first item."""
_LINE = re.compile(rf"[^\d(+*/×÷^−–-]*({_SUM.pattern})\s*(?:[=?,;!].*|\.(?!\d).*)?")
"""What a model wrote: words without a number, a sum, and nothing or what it takes for the answer."""


def written(text: str) -> str:
    """The first sum of a text as it is asked for, "17 + 25 - 4"; "" where there is none."""
    stretch: str
    for stretch in _AROUND.findall(text):
        bare = stretch.strip(" \t\r\n.,")
        if _SUM.fullmatch(bare):
            return bare
    return ""


def _parts(expression: str) -> tuple[list[int], list[str]]:
    """Its numbers, and the signs between them."""
    numbers = [int(digits) for digits in re.findall(r"\d+", expression)]
    return numbers, ["+" if sign == "+" else "-" for sign in re.findall(r"[-+−–]", expression)]


def shown(task: Task) -> str:
    """The task's sum in plain form, "" where it has none."""
    return _plain(*_parts(found)) if (found := written(question(task))) else ""


def _plain(numbers: Sequence[int], signs: Sequence[str]) -> str:
    return str(numbers[0]) + "".join(f" {s} {n}" for s, n in zip(signs, numbers[1:], strict=True))


def _make(own: SumsSettings, given: Sequence[Task]) -> Read:
    known = [_parts(shown(task))[0] for task in given]
    least = own.min_terms or min(map(len, known))
    most = own.max_terms or max(map(len, known))
    if least > most:
        raise ConfigError(
            f"propose.settings: no sum has {least} numbers or more and {most} at most; set min_terms and "
            "max_terms (not set, they are as in the training tasks)"
        )
    digits = own.max_digits or max(len(str(n)) for numbers in known for n in numbers)

    def read(text: str, like: Task) -> Task | str:
        line = next((one for one in text.splitlines() if one.strip()), "")
        match = _LINE.fullmatch(_MARK.sub("", line, count=1))
        found = written(match[1]) if match else ""
        if not found or len(found) > 200:  # a loop of the model's, and int() has a limit
            return "not a sum of whole numbers"
        numbers, signs = _parts(found)
        if not least <= len(numbers) <= most:
            return "too few or too many numbers"
        if max(len(str(n)) for n in numbers) > digits:
            return "a number too long"
        total = numbers[0] + sum(n if sign == "+" else -n for sign, n in zip(signs, numbers[1:], strict=True))
        tags = {
            "difficulty": f"num_digits={max(len(str(n)) for n in numbers)} num_terms={len(numbers)}",
            "operators": " ".join(sorted(set(signs))),
        }
        gym = like.meta.get("gym")
        return Task(
            id="",
            prompt=asked_like(like, written(question(like)), _plain(numbers, signs)),
            references=(str(total),),
            tags={name: value for name, value in tags.items() if name in like.tags},
            # What else a given task has there is about its own sum.
            meta={"gym": {"dataset": gym.get("dataset")}} if isinstance(gym, dict) else {},
        )

    return read


SUMS = FamilyKind(
    name="sums",
    about="a sum or a difference of whole numbers",
    make=_make,
    show=shown,
    settings=SumsSettings,
)
