"""Model text is hostile: what reaches the terminal must neither act nor hide."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from selfrefine.report.safe_text import safe_text, text


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b[31mred", "␛[2J␛[31mred"),  # CSI: clear the screen, colour
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "␛]8;;http://x␛\\link␛]8;;␛\\"),  # OSC 8 link
        ("\x9b31m", "‹U+009B›31m"),  # CSI again, as one C1 byte
        ("safe\rEVIL", "safe␍EVIL"),  # carriage return overwrites what was printed
        ("a\x00b\x08\x7f\t", "a␀b␈␡␉"),
        ("if \u202e(nimda\u2066", "if ‹U+202E›(nimda‹U+2066›"),  # bidi override and isolate
        ("pass\u200bword\ufeff", "pass‹U+200B›word‹U+FEFF›"),  # zero width
        ("one\u2028two\u2029", "one‹U+2028›two‹U+2029›"),
        ("\ud83d", "‹U+D83D›"),  # a lone surrogate would raise UnicodeEncodeError when written
        ("\U000e0041", "‹U+E0041›"),  # a tag character: an invisible ASCII letter
        ("\u3164", "‹U+3164›"),  # Hangul filler: a letter by category, invisible
        ("héllo 漢字 🙂 é", "héllo 漢字 🙂 é"),  # ordinary text is left alone
    ],
)
def test_what_acts_or_hides_is_shown(hostile: str, shown: str) -> None:
    assert safe_text(hostile) == shown


def test_line_feeds_stay_only_when_asked_for() -> None:
    assert safe_text("a\nb\r\n") == "a␊b␍␊"
    assert safe_text("a\nb\r\n", newlines=True) == "a\nb␍\n"


def test_the_limit_counts_what_is_shown_and_marks_the_cut() -> None:
    assert safe_text("abcdef", limit=6) == "abcdef"
    assert safe_text("abcdefg", limit=6) == "abcde…"
    # One character that is shown as eight: the limit is a width, not a count of input.
    assert safe_text("\u202eab", limit=6) == "‹U+20…"


@given(st.text(st.characters(), max_size=40))
def test_nothing_invisible_survives_and_it_can_always_be_written(anything: str) -> None:
    shown = safe_text(anything)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()
    assert safe_text(shown) == shown


@pytest.mark.parametrize(
    "hostile", ["[/red]", "[bold]x[/bold]", "[link=http://x]y[/link]", "\\[red]", ":smile:"]
)
def test_rich_markup_is_inert_even_on_a_console_that_parses_it(hostile: str) -> None:
    # Trap: "[/red]" raises MarkupError in rich and "[link=...]" makes a clickable one.
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=80).print(text(hostile))
    assert out.getvalue() == hostile + "\n"
