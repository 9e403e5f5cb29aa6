"""Reads a score and a verdict out of what a critic wrote: its own generated text, never its prompt.

The rules, each with its table in the tests:

1. Escape sequences (payload included), invisible characters and markdown marks are dropped first.
2. A score is `Score: N` (or rating, grade; `:`, `=`, `is`, `of`), `N/M`, `N of M`, `N out of M`, `N%`, or
   "I give it N out of M". Of `1 + 1 + 0 = 2` the sum is read. Without M the scale is the caller's. The result
   is N / M.
3. What directly follows may say the score again: `4 (80%)`, `0.8 (4/5)`. It must agree.
4. A verdict is `Verdict: ok` or `Verdict: revise`; `not ok` is `revise`. The rest of its line must not take
   it back: `ok, but …`, `ok, revise the end`, `revise → ok`. `ok, nothing to revise` takes nothing back.
5. The last line that has one counts, also when it cannot be read: `Score: N/A` after `Score: 4` is null.
6. Null with a reason: out of range; a share without M (`0.8`, on a scale above 1); a range or form echoed
   from the prompt (`0-5`, `N`, `ok or revise`); two different ones on the line that counts; full marks with
   `revise` or nothing with `ok` (both are null).
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
_OF = r"\s*(?:/|／|(?:out\s+)?of)\s*"
_OPEN = r"[\[(<\"'“]?"
# Not the end of it: `0-5`, `1 or 2` are forms, `1 + 1 + 0` is a sum on its way.
_NO_MORE = r"(?!\s*(?:[-–—/|+]|to\b|or\b|(?:out\s+)?of\b)\s*\d)"
_SCORE = re.compile(
    # A label with : or = is a score even where no number follows: then it is one that cannot be read.
    r"\b(?:score|rating|grade)\b\s*(?:\([^()\n]{0,40}\)\s*)?"
    rf"(?:[:：=]\s*|(?:is|of|[-–—])\s+(?={_OPEN}[-−+]?\d)){_OPEN}"
    r"(?:(?:\d(?:[ \t]*\+[ \t]*\d){1,20}[ \t]*=[ \t]*)?"
    rf"(?P<a>{_NUMBER})(?:\s*\(?{_OF}(?P<m>{_NUMBER})|\s*(?P<p>[%％]))?{_NO_MORE})?"
    r"|\b(?:give|giving|gave|rate|score|award|assign|deserve|grade)(?:s|d|ed|ing)?\b[^\n\d]{0,40}?"
    rf"(?P<b>{_NUMBER}){_OUT_OF}(?P<n>{_NUMBER})",
    re.IGNORECASE,
)
_AGAIN = re.compile(
    rf"[ \t]*(?P<equals>[(\[,=—–-]+[ \t]*(?:i\.e\.,?|or|that is)?)[ \t]*(?P<b>{_NUMBER})"
    rf"(?:{_OF}(?P<n>{_NUMBER})|[ \t]*(?P<p>[%％]))?",
    re.IGNORECASE,
)
_VERDICT = re.compile(
    rf"\bverdict\b\s*(?:[:：=]|is\b)\s*{_OPEN}"
    r"(?P<word>(?P<not>(?:not|isn['’]t)\s+(?:yet\s+|quite\s+)?)?ok(?:ay)?\b|revise\b)?",
    re.IGNORECASE,
)
_NEGATED = re.compile(
    r"(?:\b(?:no|not|nothing|never|without|neither|nor)|n['’]t)\s+(?:\w+\s+){0,4}$", re.IGNORECASE
)
_SAYS = {
    "revise": re.compile(r"\b(?:revis\w*|rewrit\w*|redo|fix|change|improve)\b", re.IGNORECASE),
    "ok": re.compile(r"\bok(?:ay)?\b", re.IGNORECASE),
}
_QUALIFIED = re.compile(r"\?|\b(?:but|however|though|although|except|unless|if)\b", re.IGNORECASE)


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


def _rests(found: list[re.Match[str]], text: str) -> list[str]:
    """What stands after each match, up to the next one or the end of the line."""
    ends = [match.start() for match in found[1:]] + [len(text)]
    return [text[match.end() : end].partition("\n")[0] for match, end in zip(found, ends, strict=False)]


def _last_score(text: str, scale: float) -> tuple[float | None, str | None]:
    values: set[float] = set()
    found = _on_last_line(_SCORE, text)
    for match, rest in zip(found, _rests(found, text), strict=True):
        number, out_of = match["a"] or match["b"], match["m"] or match["n"] or ""
        if number is None:
            return None, "the score is not a number"
        most = 100.0 if match["p"] else _float(out_of, scale)
        value = _float(number, 0.0)
        if (again := _said_again(rest)) is not None:
            bare = not out_of and not match["p"]
            if not _agree(value, most, again, bare):
                return None, "contradictory: the score is followed by another one"
            if bare:
                value, most = again[0], again[1]
        elif not out_of and not match["p"] and 0.0 < value < 1.0 < most:
            return None, f"score {number[:20]} may be out of 1 or out of {most:g}"
        if not 0.0 <= value <= most or most <= 0.0:
            return None, f"score {number[:20]} is outside 0 to {most:g}"
        values.add(value / most)
    if len(values) > 1:
        return None, "contradictory: different scores on one line"
    return (values.pop() if values else None), None


def _said_again(rest: str) -> tuple[float, float] | None:
    """A figure directly after the score, and what it is out of: `(80%)` is 80 of 100, `= 0.8` is 0.8 of 1."""
    match = _AGAIN.match(rest)
    if match is None or not (match["n"] or match["p"] or "=" in match["equals"]):
        return None
    return _float(match["b"], 0.0), 100.0 if match["p"] else _float(match["n"] or "", 1.0)


def _agree(value: float, most: float, again: tuple[float, float], bare: bool) -> bool:
    """Whether both say one score. A bare first one may be on the second's scale, a share or a percentage."""
    figure, out_of = again
    if out_of <= 0.0 or most <= 0.0:
        return False
    readings = [value / most] + ([value / out_of, value, value / 100.0] if bare else [])
    return any(abs(reading - figure / out_of) < 1e-6 for reading in readings)


def _last_verdict(text: str) -> tuple[Verdict | None, str | None]:
    verdicts: set[Verdict] = set()
    found = _on_last_line(_VERDICT, text)
    for match, rest in zip(found, _rests(found, text), strict=True):
        if match["word"] is None:
            return None, "the verdict is neither ok nor revise"
        verdict: Verdict = "ok" if match["word"].lower().startswith("ok") else "revise"
        other = _SAYS["revise" if verdict == "ok" else "ok"]
        if any(
            not _NEGATED.search(rest[max(0, said.start() - 60) : said.start()])
            for said in other.finditer(rest)
        ):
            return None, "contradictory: the verdict says both ok and revise"
        if verdict == "ok" and _QUALIFIED.search(rest):
            return None, "contradictory: the verdict is ok with a reservation"
        verdicts.add(verdict)
    if len(verdicts) > 1:
        return None, "contradictory: different verdicts on one line"
    return (verdicts.pop(), None) if verdicts else (None, "no verdict")


def _float(number: str, absent: float) -> float:
    """float() reads every script's decimal digits; the comma and the true minus it does not."""
    return float(number.replace(",", ".").replace("−", "-")) if number else absent
