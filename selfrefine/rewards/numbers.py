"""The last number of a text, exactly, or the reason why it is not read. For `numeric`, `majority` and `gym`.

| read | as |
|---|---|
| `42`, `-7`, `+8`, `.5`, `1.5e3`, `1,234,567.50`, `1{,}234`; `1 234` with a no-break or thin space | itself |
| `0,5`, `3,14`: a comma that cannot separate thousands | a decimal comma |
| `1.234` | a decimal point |
| `3/4`, `3 / 4`, `\\frac{-3}{4}`, `½` | a fraction |
| `-$5`, `5 €`, `50%`, `42km`, `42 m^2`, `42 m²`, `21st` | the number without currency, percent sign, unit |

Not read, because it is not one number or could be two: `1.234.567`, `1.234,50`, `1,2,3`, `1'234`; `1 234`
with a plain space; mixed numbers (`1 1/2`, `1½`); dates, times, ratios, ranges (`1/2/24`, `3:30`, `4-5`,
`4 to 5`); tuples (`(0,5)`); inequalities, `±`; operations that are not worked out (`7-3`, `2 * 3`,
`3 \\times 10^5`, `\\sqrt{2}`, `3!` unless it ends a sentence); variables (`3x`, `x_1`, `H2O`); scales (`5k`,
`2 million`); `0.333...`; a minus apart from its number (`so - 3`; after `=` it is a sign). Numerals other
than decimal digits (`six`, `四十二`, `Ⅳ`, `π`) are not read either; they matter only where the text has no
digit.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

_WINDOW = 200
"""Characters around the number that are looked at."""
_MAX_DIGITS = 300  # int() refuses more than 4,300 digits and takes quadratic time before that
_SPACES = "\u00a0\u2009\u202f"
"""Spaces that belong to a number; a plain one may as well stand between two."""
_ATOM = re.compile(rf"(?:(?<![\w.])\.)?\d(?:[\d,.'’_٫٬{_SPACES}]*\d)?(?:[eE][-+]?\d+(?!\w))?|[¼½¾⅐-⅞]")
_THOUSANDS = re.compile(
    rf"[1-9]\d{{0,2}}(?:,\d{{3}})+(?:\.\d+)?|[1-9]\d{{0,2}}(?:[{_SPACES}]\d{{3}})+(?:\.\d+)?"
)
_TRIPLETS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:[ ,]\d{3})* \Z")
_DECIMAL = re.compile(r"\d*\.?\d+(?:[eE][-+]?\d{1,3})?")
_ABOVE = re.compile(rf"(?P<above>{_ATOM.pattern})[ \t]?[/⁄][ \t]?\Z")
_FRAC = re.compile(
    r"(?P<sign>[-+] ?)?\\[dtc]?frac\s?\{\s?(?P<a>[-+]?\d+(?:\.\d+)?)\s?\}"
    r"\s?\{\s?(?P<b>[-+]?\d+(?:\.\d+)?)\s?\}"
)
_UNIT_POWER = re.compile(
    rf"(?<=\d)(?P<unit>[ {_SPACES}]?(?:\\(?:text|mathrm)\{{ ?)?(?:k?[A-Za-z]{{1,2}}[·*/])?"
    r"(?:[kcdmnµμ]?m|s|sec|in|inch(?:es)?|ft|feet|foot|yd|yards?|mi|miles?|(?:kilo|centi|milli)?met(?:er|re)s?|units?)"
    r"\}?)(?:\^\{?[-+]?\d\}?|[23])(?!\w)"
)
_CURRENCY = re.compile(r"(?:\b(?:US|NZ|HK|A|C|S))?[$€£¥₹₩₽]\s?\Z|\b(?:USD|EUR|GBP|CHF|JPY|Rs\.?)\s?\Z")
_DASH = re.compile(r"(?P<dash>[-+–—])(?P<gap>[ \t]*)\Z")
_COMMAND = re.compile(r"\\(?:[dtc]?frac|sqrt|binom|overline|log|ln|sin|cos|tan)(?![A-Za-z])(?:_\{?\w+\}?)?")
_IN_WORDS = re.compile(
    r"\b(?:one\b(?=\W*\Z)|zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    r"(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|"
    r"hundred|thousand|million|dozen|half)\b",
    re.IGNORECASE,
)

_PI = re.compile(r"π|\\pi\b|\bpi\b")


def _patterns(*pairs: tuple[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), why) for pattern, why in pairs]


_OPERATION = "an unevaluated operation"
_RANGE = "a range, a choice or a difference"
_EXPRESSION = "an expression"
_DATE = re.compile(
    r"(?<![\d./-])(?:\d{4}(?P<mark>[-/])\d{1,2}(?P=mark)\d{1,2}|\d{1,2}(?P<sign>[-/])\d{1,2}(?P=sign)\d{4})\Z"
)
_FACTORIAL = re.compile(r"!+(?:[ \t]*[-+*/^=×·a-z\d(]|[ \t]*\\(?:times|cdot)|\$)")
_BEFORE = _patterns(
    (r"\\[dtc]?frac[ \t]?(?:\d|\{[^{}]*\})?[ \t]?\Z", _EXPRESSION),
    (
        r"\d[ \t]*(?:~|\.\.|…)[ \t]*\Z|\d[ \t]+(?:to|or)[ \t]+\Z|\bbetween[ \t]+\S+[ \t]+and[ \t]+\Z",
        _RANGE,
    ),
    (
        r"[×·÷∙⋅+√^][ \t]*\{?\Z|[\d)\]}][ \t]*(?:\*{1,2}|x)[ \t]*\Z|\\(?:times|cdot|div)[ \t]*\Z",
        _OPERATION,
    ),
    (r"[.,٫٬]\Z|_\{?\Z|[A-Za-zÀ-ɏ]\Z", "part of a word or of another number"),
    (r"\d(?::|[ \t]+:[ \t]*)\Z", "a time or a ratio"),
    (r"[/⁄][ \t]*\Z", "a date or a quotient"),
    (
        r"(?:^|\s)[<>]=?[ \t]*\Z|\w(?:<=?|>=)[ \t]*\Z|[≤≥≠][ \t]*\Z|\\(?:leq?|geq?|neq?|lt|gt)[ \t]*\Z",
        "an inequality",
    ),
    (r"(?:±|\+/?-|\\pm)[ \t]*\Z", "a number with ±"),
)
_AFTER = _patterns(
    (
        r"\^(?!\{?(?:\\circ|°))|[²³¹⁰⁴-⁹]|[ \t]?\\(?:pi|sqrt|times|cdot|div|[dtc]?frac)\b|[ \t]?[π√]",
        _OPERATION,
    ),
    (r"[ \t]*\+[ \t]*[A-Za-z(\\]|\([a-z][ \t]?[-+*/)]", _OPERATION),
    (r"[xyznabij](?!\w)|[ \t]?[xyzn]\^|[A-Za-z]\^", "a factor of a variable"),
    (
        r"[ \t]?(?:[kKM]|bn|hundred|thousand|million|billion|trillion|dozen|lakh|crore)s?\b"
        r"|[ \t]?[万萬亿億千百十]",
        "a scale such as k or million",
    ),
    (r"[ \t]?±", "a number with ±"),
)
_PERCENT = re.compile(r"\s?(?:[%％]|per ?cent\b)")


class Number(NamedTuple):
    """`text`: plain, such as `-1234.50` or `3/4`. `value`: None where not read; `why` says the reason."""

    text: str
    value: Fraction | None
    why: str = ""
    percent: bool = False


def last_number(text: str) -> Number | None:
    """The last number in `text`; None where there is none at all."""
    text = _plain(text)
    last = None
    for last in _ATOM.finditer(text):  # noqa: B007  the last one
        pass
    if last is None:
        other = (
            _IN_WORDS.search(text)
            or _PI.search(text)
            or any(unicodedata.numeric(c, None) is not None for c in text)
        )
        return Number("", None, "only digits are read, not number words or π") if other else None
    before = text[max(0, last.start() - _WINDOW) : last.start()]
    after = text[last.end() : last.end() + _WINDOW]
    dated = before[-8:] + last[0]
    found, before = _quotient(last[0], before)
    sign, before, why = _signed(_CURRENCY.sub("", before))
    why = (
        "a date"
        if _DATE.search(dated)
        else found.why or why or _why_not(last[0], _CURRENCY.sub("", before), after)
    )
    if why or found.value is None:
        return Number(last[0][:40], None, why)
    value = -found.value if sign else found.value
    return Number(sign + found.text, value, "", _PERCENT.match(after) is not None)


def _plain(text: str) -> str:
    """LaTeX and typographic forms as plain ones; exponents of units dropped."""
    text = text.replace("\u2212", "-").replace("\\$", "$").replace("\\%", "%").replace("{,}", ",")
    text = text.replace("\\!", "").replace("\\,", "\u2009")
    return _UNIT_POWER.sub(r"\g<unit>", _FRAC.sub(_as_quotient, text))


def _as_quotient(match: re.Match[str]) -> str:
    """`-\\frac{-3}{4}` as 3/4, kept apart from a digit in front of it (`1\\frac{1}{2}`) or behind it."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    signs = f"{match['sign'] or ''}{match['a']}{match['b']}".count("-")
    minus = "-" if signs % 2 else "+" if match["sign"] else ""
    quotient = f"{minus}{match['a'].lstrip('+-')}/{match['b'].lstrip('+-')}"
    return f"{' ' if before.isdigit() else ''}{quotient}{'*' if after.isdigit() else ''}"


def _quotient(atom: str, before: str) -> tuple[Number, str]:
    """An atom, after a fraction stroke with what it divides; and what is left before that."""
    number = _atom(atom)
    match = _ABOVE.search(before)
    if match is not None and number.value is not None:
        above, rest = _atom(match["above"]), before[: match.start()]
        if above.value is None:
            return above, rest
        if re.match(r"0\d|0\Z", atom):
            return number._replace(value=None, why="a date or a division by zero"), rest
        number, before = Number(f"{above.text}/{number.text}", above.value / number.value), rest
    elif not unicodedata.decomposition(atom[0]).startswith("<fraction>"):
        return number, before
    if re.search(r"\d ?\Z", before):
        return number._replace(value=None, why="a mixed number"), before
    return number, before


def _atom(atom: str) -> Number:
    """A run of digits and what may stand between them."""
    if len(atom) > _MAX_DIGITS:
        return Number(atom, None, f"a number of over {_MAX_DIGITS} characters")
    plain = unicodedata.normalize("NFKC", atom) if not atom[-1].isdecimal() else atom
    if "⁄" in plain:
        plain = plain.replace("⁄", "/")
    elif _THOUSANDS.fullmatch(plain):
        plain = re.sub(rf"[,{_SPACES}]", "", plain)
    elif re.fullmatch(r"\d+,\d+", plain):
        plain = plain.replace(",", ".")
    elif not _DECIMAL.fullmatch(plain):
        return Number(atom, None, "its separators are ambiguous")
    return Number(plain, Fraction(plain))


def _signed(before: str) -> tuple[str, str, str]:
    """The sign at the end of `before`, what is left of that, and why what stands there may be no sign."""
    match = _DASH.search(before)
    if match is None:
        return "", before, ""
    dash, rest = match["dash"], before[: match.start()]
    previous = rest.rstrip(" \t")[-1:]
    if previous and re.match(r"[\d)\]}%]", previous):
        return "", rest, _OPERATION if dash == "+" else _RANGE
    if dash == "—":
        return "", rest, ""
    if dash == "–" or match["gap"]:
        after_equals = dash == "-" and previous and previous in "=≈({"
        return ("-", rest, "") if after_equals else ("", rest, "a dash or a minus sign")
    if re.search(r"[A-Za-zÀ-ɏ_+–—-]\Z", rest):
        return "", rest, "a difference or part of a word"
    return ("-" if dash == "-" else ""), rest, ""


def _why_not(atom: str, before: str, after: str) -> str:
    """What the surroundings make of it, where that is no number of its own; else ""."""
    found = [why for pattern, why in _BEFORE if pattern.search(before)]
    found += [why for pattern, why in _AFTER if pattern.match(after)]
    if found:
        return found[0]
    if after.startswith("!") and (_FACTORIAL.match(after) or not re.search(r"[^\W\d_][:,]?\s*\Z", before)):
        return _OPERATION  # behind a word ("The answer is 3!") it is a sentence's end
    commands = list(_COMMAND.finditer(before))
    if commands:
        inside = before[commands[-1].end() :]
        if not inside.strip() or inside.count("{") > inside.count("}"):
            return _EXPRESSION
    if re.match(r"\s?[)\]}]", after):
        pair = re.fullmatch(r"\d+,\d+", atom) and before.endswith(("(", "["))
        if (pair and not _THOUSANDS.fullmatch(atom)) or re.search(r"[(\[{][^()\[\]{}]*\d\s*,\s*\Z", before):
            return "a tuple"
    if re.fullmatch(r"\d{3}(?:\.\d+)?", atom) and _TRIPLETS.search(before):
        return "ambiguous: a space inside a number, or two numbers"
    if "." in atom and after.startswith(("...", "…")):
        return "a truncated decimal"
    return ""
