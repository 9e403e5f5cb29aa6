"""Reads a score and a verdict out of what a critic wrote: its own generated text, never its prompt.

The rules, each with its table in the tests:

1. Escape sequences (payload included), invisible characters and markdown marks are dropped first.
   Full-width letters, digits and marks count as their plain forms.
2. A score is a label and a number: `Score: N` (or rating, grade; `:`, `=`, `-`), `N/M`, `N of M`,
   `N out of M`, `N%`. Of `1 + 1 + 0 = 2` the sum is read. The result is N / M. M may also stand as a scale,
   before the mark or after the number: `(out of 10)`, `(0-10)`, `on a scale of 0 to 10`. Without M the scale
   is the caller's.
3. Prose counts only where no label does, and only a whole plain sentence: `The score is N.`, `I give it N/M.`
   Anything more in it (`not`, `if`, `with`, `to reach`) makes it a sentence about another score.
4. Another number in the same sentence after the score must agree, `4 (80%)`, `0.8 (4/5)`, or be its scale.
5. A verdict is `Verdict: ok` or `Verdict: revise`; `not ok` is `revise`. It stands alone, or a new sentence
   follows. `ok, nothing to revise` is clear, too; a reason may follow `revise`. Other words make it unclear.
6. The last line that begins with the label counts, else the last line with one inside, also when it cannot
   be read: `Score: N/A` after `Score: 4` is null.
7. Null with a reason: out of range; a share without M (`0.8`, on a scale above 1); a scale from 1, where
   nobody knows what 0 is; a range or form echoed from the prompt (`0-5`, `N`, `ok or revise`); two different
   ones on the line that counts; full marks with `revise` or nothing with `ok` (both are null).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from selfrefine.records import Verdict

# Control sequences with their payload: what a terminal would not show must not grade.
_ESCAPES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS, SOS, PM, APC
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI
    r"|\x1b[ -/]*[0-~]?"
)
_MARKDOWN = re.compile(r"[*`#~_]")
# Not NFKC: that makes `4½` into `41⁄2`.
_PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans("٫٪∕⁄", ".%//")

_GAP = r"[^\S\n]*+"  # what belongs to a number stands on its line
_NUMBER = r"[-−+]?(?:\d++(?:\.\d+|,\d{1,2})?|\.\d+)(?!\w)(?![.,]\d)"
_OUT_OF = rf"{_GAP}(?:/|out\s+of){_GAP}"
_OF = rf"{_GAP}(?:/|(?:out\s+)?of\b){_GAP}"
_OPEN = r"[\[(<\"'“]?"
_PERCENT = r"(?:%|per\s?cent\b)"
# Not the end of it: `0-5`, `1 or 2` are forms, `1 + 1 + 0` is a sum on its way.
_NO_MORE = rf"(?!{_GAP}(?:[-–—/|+]|to\b|or\b|(?:out\s+)?of\b){_GAP}\d)"
_VALUE = rf"(?P<a>{_NUMBER})(?:{_GAP}\(?{_OF}(?P<m>{_NUMBER})|{_GAP}(?P<p>{_PERCENT}))?{_NO_MORE}"
_SCORE = re.compile(
    # A label with : or = is a score even where no number follows: then it is one that cannot be read.
    r"\b(?:score|rating|grade)\b\s*+"
    r"(?:(?P<note>[(\[][^()\[\]\n]{0,40}[)\]]"
    r"|,?[ ]?(?:out\s+of\b|on\s+an?\b|from\b|\d+\s*[-–—])[^:=\n]{0,30})\s*+)?"
    rf"(?:[:=]\s*|[-–—]\s+(?={_OPEN}[-−+]?\d)){_OPEN}"
    rf"(?:(?:\d(?:[ \t]*\+[ \t]*\d){{1,20}}[ \t]*=[ \t]*)?{_VALUE})?",
    re.IGNORECASE,
)
# Whole sentences, of listed words only: a list of the words that make it another's score has no end.
_PROSE = re.compile(
    r"(?:^|(?<=[.!?:;])[^\S\n])[^\w\n]{0,5}(?:"
    r"(?:(?:my|the|final|overall|total)\s+){0,3}(?:score|rating|grade)\s+(?:is|of)\s+"
    rf"{_OPEN}{_VALUE}"
    r"|(?:(?:overall|so|therefore|thus|hence)\b,?\s+)?"
    r"(?:I(?:['’]d|['’]ll|\s+would|\s+will)?\s+(?:give|rate|score|award|assign|grade)"
    r"|(?:it|(?:this|the)\s+(?:answer|draft|response|solution))\s+(?:deserves|scores|gets|earns))\s+"
    r"(?:(?:it|this|that|the|an?|answer|draft|response|solution|score|rating|grade|of|at|with)\s+){0,6}"
    rf"(?P<b>{_NUMBER}){_OUT_OF}(?P<n>{_NUMBER})"
    rf")(?=[\])>\"'”’]*{_GAP}(?:[.!;]|,?{_GAP}(?:because|since)\b|$))",
    re.IGNORECASE | re.MULTILINE,
)
_RANGE = rf"(?P<low>{_NUMBER}){_GAP}(?:[-–—]|to\b|\.\.){_GAP}(?P<r>{_NUMBER}){_GAP}%?"
_SCALE = re.compile(
    rf"{_GAP}(?:(?:points?|stars?|marks?)\b)?[\s,;(\[]*+(?:"
    rf"(?:(?:on|in|from)\s+)?(?:(?:an?|the)\s+)?(?:scale\s*(?:of\b|from\b|is\b|:)?\s*)?{_RANGE}"
    r"|on\s+an?\s+(?P<q>\d+)[-\s]point\s+scale"
    rf"|(?:/|(?:out\s+)?of\b|max(?:imum|\.)?:?)\s*(?:(?:an?|the|possible|maximum)\s+){{0,3}}(?P<t>{_NUMBER})"
    r")(?:\s+points?\b)?[\])]*",
    re.IGNORECASE,
)
_AGAIN = re.compile(
    r"[ \t]*(?:(?:points?|stars?|marks?)\b[ \t]*)?"
    rf"(?P<equals>[(\[,=—–-]+[ \t]*(?:i\.e\.,?|or|that is)?)[ \t]*(?P<b>{_NUMBER})"
    rf"(?:{_OF}(?P<n>{_NUMBER})|[ \t]*(?P<p>{_PERCENT}))?[\])]*",
    re.IGNORECASE,
)
# `4 out of ten`, `4 and a half`: with these words the number is not the whole score.
_MORE_IN_WORDS = re.compile(
    r"\b(?:out\s+of|scale|half|quarters?|hundred|thousand|plus|minus)\b", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!]\s+(?=[^\W\d])")

_WORD = rf"{_OPEN}(?P<word>(?P<not>(?:not|isn['’]t)\s+(?:yet\s+|quite\s+)?)?ok(?:ay)?\b|revise\b)?"
_VERDICT = re.compile(rf"\bverdict\b\s*+[:=]\s*{_WORD}", re.IGNORECASE)
_VERDICT_PROSE = re.compile(rf"\bverdict\b\s+is\b\s*{_WORD}", re.IGNORECASE)
_LEAD = re.compile(r"[^\w\n]*(?:\d{1,2}[.)]\s*)?(?:(?:my|final|overall|total)\s+){0,2}\Z", re.IGNORECASE)
_OTHERS = re.compile(
    r"\b(?:max(?:imum|\.)?|min(?:imum|\.)?|highest|lowest|best|top|perfect|full|possible|target|previous)\s+\Z",
    re.IGNORECASE,
)

_CHANGE = r"(?:revis\w*|rewrit\w*|redo|fix\w*|chang\w*|improv\w*|mend\w*)\b"
_NO = r"(?:\b(?:no|not|nothing|never|without|neither|nor)|n['’]t)"
_TO = r"(?:(?:a|any|further|more|need|needs|needed|reason|to|be)\s+){0,4}"
_NEGATED = re.compile(rf"{_NO}\s+{_TO}\Z", re.IGNORECASE)
_SAYS = {
    "revise": re.compile(r"\b(?:revis\w*|rewrit\w*|redo|fix|change|improve)\b", re.IGNORECASE),
    "ok": re.compile(r"\bok(?:ay)?\b", re.IGNORECASE),
}
_QUALIFIED = re.compile(
    r"\?|\b(?:but|however|though|although|except|unless|if)\b|[.!,;–—-]\s*(?:no|not)\b\W*\Z", re.IGNORECASE
)
_NOTHING_TO_DO = re.compile(
    r"\W*(?:(?:there(?:['’]s)?|is|are|it|i|the|answer|draft|see|has|needs|do|does|would)\s+){0,4}"
    rf"(?:\w{{2,6}})?{_NO}\s+{_TO}{_CHANGE}(?:\s+(?:is|are|needed|required|necessary|anything|it|at|all)\b)*\W*",
    re.IGNORECASE,
)
_OBJECT = re.compile(
    r"\W*\Z|\W*[^\w\s]|\s+(?:the|this|that|it|its|your|a|an|by|to|and|with|because|since|for|as)\b",
    re.IGNORECASE,
)
_TAKES_BACK = re.compile(
    rf"\?|{_NO}\b(?!\s+ok)|\b(?:if|unless|optional\w*|needless\w*|un(?:needed|necessar\w*))\b", re.IGNORECASE
)
_TAG = re.compile(r"</\w{1,20}>|<\|\w{1,20}\|>")
_SCORE_FOLLOWS = re.compile(r"\b(?:score|rating|grade)\b\W{0,3}[:=\d].*", re.IGNORECASE)

_NOT_A_NUMBER = "the score is not a number"
_ANOTHER = "contradictory: the score is followed by another one"


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
    text = "\n".join(_MARKDOWN.sub("", _ESCAPES.sub("", text).translate(_PLAIN)).splitlines())
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf"))


def _that_count(label: re.Pattern[str], prose: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """All labels on the last line that begins with one, else on the last with one inside, else the prose."""
    labelled = [match for match in label.finditer(text) if not _OTHERS.search(_before(match, text))]
    first = [match for match in labelled if _LEAD.match(_before(match, text))]
    found = labelled or list(prose.finditer(text))
    if not found:
        return []
    last = (first or found)[-1].start()
    start, end = text.rfind("\n", 0, last + 1), text.find("\n", last + 1)
    return [one for one in found if start <= one.start() and (end < 0 or one.start() < end)]


def _before(match: re.Match[str], text: str) -> str:
    """What stands before it on its line. Of much text only the end, behind a letter that is no lead."""
    reach = match.start() - 60
    start = text.rfind("\n", max(0, reach), match.start()) + 1
    return text[start : match.start()] if start or reach <= 0 else "x " + text[reach : match.start()]


def _rests(found: list[re.Match[str]], text: str) -> list[str]:
    """What stands after each match, up to the next one or the end of the line."""
    ends = [match.start() for match in found[1:]] + [len(text)]
    return [text[match.end() : end].partition("\n")[0] for match, end in zip(found, ends, strict=False)]


def _last_score(text: str, scale: float) -> tuple[float | None, str | None]:
    values: set[float] = set()
    found = _that_count(_SCORE, _PROSE, text)
    for match, rest in zip(found, _rests(found, text), strict=True):
        value = _value(match, rest, scale)
        if isinstance(value, str):
            return None, value
        values.add(value)
    if len(values) > 1:
        return None, "contradictory: different scores on one line"
    return (values.pop() if values else None), None


def _value(match: re.Match[str], rest: str, scale: float) -> float | str:
    """One score in [0, 1], or why it is none."""
    parts = match.groupdict()
    number, out_of = parts["a"] or parts.get("b"), parts["m"] or parts.get("n")
    # On the line below its label a number may be that of a list: `Score:\n1. The units are missing.`
    more = _More(rest)
    if number is None or ("\n" in match[0] and re.search(r"\w", more.left)):
        return _NOT_A_NUMBER
    ranges = [*_noted(parts.get("note")), *more.scales]
    if any(one is None for one in ranges):
        return "the scale beside the score cannot be read"
    if _MORE_IN_WORDS.search(more.sentence):
        return "the score or its scale is partly in words: only digits are read"
    for low, _ in filter(None, ranges):
        if low:
            return f"the score is on a scale from {low:g}, not from 0"
    scales = {high for _, high in filter(None, ranges)}
    scales |= {_float(out_of)} if out_of else {100.0} if parts["p"] else set()
    if len(scales) > 1:
        return "contradictory: the score has different scales"
    bare, value, most = not scales, _float(number), scales.pop() if scales else scale
    if more.numbers or not all(_agree(value, most, again, bare) for again in more.again):
        return _ANOTHER
    on_scales = [(figure, whole) for figure, whole in more.again if whole is not None]
    if bare and on_scales:
        value, most = on_scales[0]
    elif bare and 0.0 < value < 1.0 < most:
        return f"score {number[:20]} may be out of 1 or out of {most:g}"
    if not 0.0 <= value <= most or most <= 0.0:
        return f"score {number[:20]} is outside 0 to {most:g}"
    return value / most


_Range = tuple[float, float]
"""The lowest and the highest score."""


class _More:
    """What follows a score in its sentence: its scale, the score said again; `left` is not understood."""

    def __init__(self, rest: str) -> None:
        self.scales: list[_Range] = []
        self.again: list[tuple[float, float | None]] = []
        at = 0
        while found := _SCALE.match(rest, at) or _AGAIN.match(rest, at):
            at = found.end()
            if found.re is _SCALE:
                self.scales.append(_range(found))
            else:
                # `(80%)` is 80 of 100, `= 0.8` is 0.8 of 1; of `(0.8)` nobody says what it is out of.
                whole = 100.0 if found["p"] else 1.0 if "=" in found["equals"] else None
                self.again.append((_float(found["b"]), _float(found["n"]) if found["n"] else whole))
        self.left = rest[at:]
        self.sentence = self.left[: end.start()] if (end := _SENTENCE_END.search(self.left)) else self.left
        self.numbers = any(unicodedata.category(c)[0] == "N" for c in self.sentence)


def _noted(note: str | None) -> Iterator[_Range | None]:
    """The scale between a label and its mark; None where there is a number that is no scale."""
    if note and (re.search(r"\d", note) or _MORE_IN_WORDS.search(note)):
        found = _SCALE.fullmatch(note.strip())
        yield _range(found) if found else None


def _range(found: re.Match[str]) -> _Range:
    return _float(found["low"] or "0"), _float(found["r"] or found["q"] or found["t"])


def _agree(value: float, most: float, again: tuple[float, float | None], bare: bool) -> bool:
    """Whether both say one score. A bare first one may be on the second's scale, a share or a percentage."""
    figure, whole = again
    if most <= 0.0 or (whole is not None and whole <= 0.0):
        return False
    if whole is None:
        return any(abs(reading - figure) < 1e-6 for reading in (value, value / most))
    readings = [value / most] + ([value / whole, value, value / 100.0] if bare else [])
    return any(abs(reading - figure / whole) < 1e-6 for reading in readings)


def _last_verdict(text: str) -> tuple[Verdict | None, str | None]:
    verdicts: set[Verdict] = set()
    found = _that_count(_VERDICT, _VERDICT_PROSE, text)
    for match, rest in zip(found, _rests(found, text), strict=True):
        if match["word"] is None:
            return None, "the verdict is neither ok nor revise"
        verdict: Verdict = "ok" if match["word"].lower().startswith("ok") else "revise"
        if why := _unclear(verdict, _TAG.sub("", rest)):
            return None, why
        verdicts.add(verdict)
    if len(verdicts) > 1:
        return None, "contradictory: different verdicts on one line"
    return (verdicts.pop(), None) if verdicts else (None, "no verdict")


def _unclear(verdict: Verdict, rest: str) -> str | None:
    """Why what follows the verdict on its line leaves it in doubt."""
    for said in _SAYS["revise" if verdict == "ok" else "ok"].finditer(rest):
        if not _NEGATED.search(rest[max(0, said.start() - 60) : said.start()]):
            return "contradictory: the verdict says both ok and revise"
    if verdict == "ok" and _QUALIFIED.search(rest):
        return "contradictory: the verdict is ok with a reservation"
    own = _SCORE_FOLLOWS.sub("", _SENTENCE_END.split(rest, maxsplit=1)[0])
    if verdict == "ok" and re.search(r"\w", own) and not _NOTHING_TO_DO.fullmatch(own):
        return "the verdict is not clear: more words follow ok in its sentence"
    if verdict == "revise" and (_TAKES_BACK.search(own) or not _OBJECT.match(own)):
        return "the verdict is not clear: what follows revise may take it back"
    return None


def _float(number: str) -> float:
    """float() reads every script's decimal digits; the comma and the true minus it does not. Never -0.0."""
    return float(number.replace(",", ".").replace("−", "-")) + 0.0
