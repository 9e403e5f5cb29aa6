"""Reads a score and a verdict out of what a critic wrote: its own generated text, never its prompt.

The rules, each with its table in the tests:

1. Escape sequences (payload included), invisible characters and markdown marks are dropped first.
2. A score is `Score: N` (or rating, grade; `:`, `=`, `is`, `of`), `N/M`, `N out of M`, `N%`, or "I give it
   N out of M". Of `1 + 1 + 0 = 2` the sum is read. Without M the scale is the caller's. The result is N / M.
3. A verdict is `Verdict: ok` or `Verdict: revise`, decided by its first word; `not ok` is `revise`.
4. The last line that has one counts, also when it cannot be read: `Score: N/A` after `Score: 4` is null.
5. Null with a reason: out of range; a range or form echoed from the prompt (`0-5`, `N`, `ok or revise`);
   two different ones on the line that counts; full marks with `revise` or nothing with `ok` (both are null).
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from selfrefine.records import Verdict

# Control sequences with their payload: what a terminal would not show must not grade.
_ESCAPES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS, SOS, PM, APC
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI
    r"|\x1b[ -/]*[0-~]?"
)
_MARKDOWN = re.compile(r"[*`#~_]")

_NUMBER = r"[-−+]?\d++(?:\.\d+|,\d{1,2})?(?!\w)(?![.,]\d)"
_OUT_OF = r"\s*(?:/|／|out\s+of)\s*"
_OPEN = r"[\[(<\"'“]?"
# Not the end of it: `0-5`, `1 or 2` are forms, `1 + 1 + 0` is a sum on its way.
_NO_MORE = r"(?!\s*(?:[-–—/|+=]|to\b|or\b|out\s+of\b)\s*\d)"
_SCORE = re.compile(
    # A label with : or = is a score even where no number follows: then it is one that cannot be read.
    r"\b(?:score|rating|grade)\b\s*(?:\([^()\n]{0,40}\)\s*)?"
    rf"(?:[:：=]\s*|(?:is|of|[-–—])\s+(?={_OPEN}[-−+]?\d)){_OPEN}"
    r"(?:(?:\d(?:[ \t]*\+[ \t]*\d){1,20}[ \t]*=[ \t]*)?"
    rf"(?P<a>{_NUMBER})(?:\s*\(?{_OUT_OF}(?P<m>{_NUMBER})|\s*(?P<p>[%％]))?{_NO_MORE})?"
    r"|\b(?:give|giving|gave|rate|score|award|assign|deserve|grade)(?:s|d|ed|ing)?\b[^\n\d]{0,40}?"
    rf"(?P<b>{_NUMBER}){_OUT_OF}(?P<n>{_NUMBER})",
    re.IGNORECASE,
)
_NO_OTHER = rf"(?![\])>\"'”]?\s*(?:[|/／,]|or\b)\s*(?:or\s+)?{_OPEN}(?:ok|revise))"
_VERDICT = re.compile(
    rf"\bverdict\b\s*(?:[:：=]|is\b)\s*{_OPEN}(?P<word>(?:not\s+)?ok(?:ay)?\b{_NO_OTHER}|revise\b{_NO_OTHER})?",
    re.IGNORECASE,
)


class Parsed(NamedTuple):
    """`score` in [0, 1]. `error` says why the verdict or a score that is there is null."""

    score: float | None
    verdict: Verdict | None
    error: str | None


def parse(text: str, scale: float = 5) -> Parsed:
    """Score and verdict of a critique. A score that is simply not there is null without an error."""
    shown = _visible(text)
    score, score_error = _last_score(shown, scale)
    verdict, verdict_error = _last_verdict(shown)
    if (score, verdict) in ((1.0, "revise"), (0.0, "ok")):
        return Parsed(None, None, f"contradictory: score {score:g} of 1 with verdict {verdict}")
    return Parsed(score, verdict, "; ".join(filter(None, (score_error, verdict_error))) or None)


def _visible(text: str) -> str:
    text = "\n".join(_MARKDOWN.sub("", _ESCAPES.sub("", text)).splitlines())
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf"))


def _on_last_line(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    found = list(pattern.finditer(text))
    if not found:
        return []
    start = text.rfind("\n", 0, found[-1].start()) + 1
    return [match for match in found if match.start() >= start]


def _last_score(text: str, scale: float) -> tuple[float | None, str | None]:
    values: set[float] = set()
    for match in _on_last_line(_SCORE, text):
        number = match["a"] or match["b"]
        if number is None:
            return None, "the score is not a number"
        most = 100.0 if match["p"] else _float(match["m"] or match["n"] or "", scale)
        value = _float(number, 0.0)
        if not 0.0 <= value <= most or most <= 0.0:
            return None, f"score {number[:20]} is not within 0 and {most:g}"
        values.add(value / most)
    if len(values) > 1:
        return None, "contradictory: different scores on one line"
    return (values.pop() if values else None), None


def _last_verdict(text: str) -> tuple[Verdict | None, str | None]:
    verdicts: set[Verdict] = set()
    for match in _on_last_line(_VERDICT, text):
        if match["word"] is None:
            return None, "the verdict is neither ok nor revise"
        verdicts.add("ok" if match["word"].lower().startswith("ok") else "revise")
    if len(verdicts) > 1:
        return None, "contradictory: different verdicts on one line"
    return (verdicts.pop(), None) if verdicts else (None, "no verdict")


def _float(number: str, absent: float) -> float:
    """float() reads every script's decimal digits; the comma and the true minus it does not."""
    return float(number.replace(",", ".").replace("−", "-")) if number else absent
