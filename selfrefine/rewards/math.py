"""math: 1 when the answer is mathematically equal to a reference: roots, sets, intervals, equations.

math-verify reads both sides and compares them, each from its last `####` on. LaTeX stands between `$` or in
`\\boxed{}`, on either side; a text that is nothing but an expression needs neither. In prose without
LaTeX, numbers are read as `numeric` reads them: math-verify alone would read `2x+1` as 2.
Unscored: a reference or an answer that cannot be read, and a comparison that fails or takes longer than
`timeout_s`. An answer without any number or LaTeX is wrong.

The time limit is math-verify's own, a SIGALRM. It works in the main thread only; elsewhere there is no limit.

Source: math-verify (Hugging Face), the extra `selfrefine[math]`.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

from msgspec import Meta, Struct

from selfrefine.errors import ConfigError
from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each, unscored
from selfrefine.rewards.numbers import last_number

_DELIMITED = re.compile(r"\\boxed|\\\(|\\\[|\$[^$\n]+\$")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_STRUCTURE = re.compile(r"[\\^_{}()\[\]<>=|]")
_TIMES = re.compile(r"(?<=\d)\s*[x×]\s*(?=\d)")
_MAX_CHARACTERS = 20_000


class MathSettings(Struct, frozen=True, forbid_unknown_fields=True):
    timeout_s: Annotated[
        int,
        Meta(ge=1, le=3600, description="Time limit for reading or comparing one answer, in seconds."),
    ] = 5


class _Unread(Exception):
    """Why a text has no expression that can be compared."""


def make(own: MathSettings, options: RewardOptions) -> Scorer:
    parse, verify, too_late = _library()
    signature = f"math-verify:{version('math-verify')}|v:1"

    def read(text: str) -> list[Any]:
        text = text.rpartition("####")[2].strip()
        if len(text) > _MAX_CHARACTERS:
            raise _Unread(f"longer than {_MAX_CHARACTERS:,} characters")
        if not _DELIMITED.search(text):
            number = last_number(text)
            unread = number is None or number.value is None
            if text and not _PROSE.search(text) and (unread or _STRUCTURE.search(text)):
                text = "$" + _TIMES.sub(r" \\times ", text) + "$"
            elif number is not None and unread:
                raise _Unread(f"{number.why}; write LaTeX between $ or in \\boxed{{}}")
        try:
            return list(parse(text, parsing_timeout=limit(), raise_on_error=True))
        except too_late:
            raise _Unread(f"takes longer than {own.timeout_s} s") from None
        except Exception as error:  # noqa: BLE001  a parser on model text: the row fails, not the run
            raise _Unread(type(error).__name__) from None

    def limit() -> int | None:
        return own.timeout_s if threading.current_thread() is threading.main_thread() else None

    def score(sample: Sample) -> Reward:
        try:
            gold = [read(reference) for reference in sample.task.references if reference.strip()]
            if not gold or not all(gold):
                raise _Unread("no expression in it")
        except _Unread as why:
            return unscored("math", f"cannot read a reference: {why}", signature)
        try:
            answer = read(sample.text)
        except _Unread as why:
            return unscored("math", f"cannot read the answer: {why}", signature)
        if not answer:
            if "\\" in sample.text or last_number(sample.text) is not None:
                return unscored("math", "cannot read the answer: no expression in it", signature)
            return checked("math", 0.0, "no expression in the answer", signature)
        try:
            right = any(verify(one, answer, timeout_seconds=limit(), raise_on_error=True) for one in gold)
        except too_late:
            return unscored("math", f"comparing takes longer than {own.timeout_s} s", signature)
        except Exception as error:  # noqa: BLE001  computer algebra on model text: the row fails, not the run
            return unscored("math", f"comparing failed: {type(error).__name__}", signature)
        return checked("math", right, None if right else "not equal", signature)

    return Scorer(name="math", score=each(score))


def _library() -> tuple[Callable[..., Any], Callable[..., Any], type[BaseException]]:
    try:
        import math_verify  # takes a second: it loads sympy
        from math_verify.errors import TimeoutException
    except ImportError as error:
        raise ConfigError(
            f"reward math needs the extra math: pip install 'selfrefine[math]' ({error})"
        ) from None
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that a thread has no time limit
    return math_verify.parse, math_verify.verify, TimeoutException


REWARD = RewardKind(
    name="math",
    about="1 if the answer is mathematically equal to a reference; reads LaTeX; needs `selfrefine[math]`",
    make=make,
    settings=MathSettings,
    needs_references=True,
    source="math-verify",
)
