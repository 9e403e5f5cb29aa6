"""What is read as a number, and what is left alone because it could be another one. Values worked by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest

from selfrefine.rewards.numbers import last_number

HALF = Fraction(1, 2)
READ = [
    ("The answer is 42.", Fraction(42)),
    ("16 - 3 = 13, so 13 * 2 = 26", Fraction(26)),
    ("$1,234,567.50 in all", Fraction("1234567.5")),
    ("2\u202f345\u202f678", Fraction(2345678)),
    (r"2{,}345", Fraction(2345)),
    ("it is -7", Fraction(-7)),
    ("it is \u22127", Fraction(-7)),  # typographic minus
    ("it costs -$5", Fraction(-5)),
    ("$-5$", Fraction(-5)),
    ("= +8", Fraction(8)),
    ("y = - 8", Fraction(-8)),  # after an equals sign nothing else can be meant
    ("Total \u2014 8", Fraction(8)),
    ("**.5**", HALF),
    ("0,5", HALF),
    ("7,25 m", Fraction(29, 4)),
    ("7,250 m", Fraction(7250)),
    ("3/4 of it", Fraction(3, 4)),
    ("3 / 4", Fraction(3, 4)),
    ("-\u00bd", -HALF),
    (r"\boxed{\frac{3}{4}}", Fraction(3, 4)),
    (r"-\dfrac{ -3 }{4}", Fraction(3, 4)),
    (r"\boxed{\$12}", Fraction(12)),
    ("1.5e3", Fraction(1500)),
    ("50% of 42km", Fraction(42)),
    ("42 m^2", Fraction(42)),
    (r"42\,\text{cm}^{3}", Fraction(42)),
    ("9.81 m/s^2", Fraction("9.81")),
    ("90^\\circ", Fraction(90)),
    ("the 21st", Fraction(21)),
    ("Step 2: 6", Fraction(6)),
    ("<b>6</b>", Fraction(6)),
    ("<<3*4=12>>12", Fraction(12)),
    ("答案是-6。", Fraction(-6)),
    ("４２", Fraction(42)),  # full width
    # a line break ends what stands before: no sign, no operation, no word
    ("The answer is\n6", Fraction(6)),
    ("4 steps\n* 6", Fraction(6)),
    ("1. Add\n2. Done:\n6.", Fraction(6)),
    ("The answer is 3!", Fraction(3)),  # an exclamation, not a factorial
    ("one of 6", Fraction(6)),  # words count only where no digit stands
]
LEFT = [
    # separators with more than one reading
    *("1.234.567", "1.234,50", "1,2,3", "1'234", "1_000", "1,00,000", "12 345", "1 000 000", "1,000 000"),
    # more than one number
    *(
        "1 1/2",
        "1½",
        r"1\frac{1}{2}",
        "1/2/2024",
        "2024-01-05",
        "3:30",
        "2 : 3",
        "(0,5)",
        "(1, 2)",
        "4-5",
        "4–5",
    ),
    *("4 to 5", "5 or 6", "between 4 and 5", "≥ 5", "x > 5", "x<5", "5 ± 1"),
    # operations and expressions
    *(
        "7-3",
        "(7)-3",
        "7 - 3",
        "7 = 4 + 3",
        "2 * 3",
        "3 x 4",
        "2^10",
        r"3 \times 10^5",
        "5²",
        "√2",
        r"\sqrt{2}",
    ),
    *(r"\frac{\pi}{4}", r"\frac12", "3/-4", "1/0", "3x", "3x^2", "2(x+y)", r"0.\overline{3}", "0.333..."),
    # names, scales, dashes
    *(r"\log_2 8", r"\log_{10} 1000"),
    *("x_1", "H2O", "COVID-19", "No.5", "5k", "2 million", "3 dozen", "- 3", "Total - 3", "--5"),
    # no decimal digits, or too many of them
    *("twenty-six", "四十二", "Ⅳ", "9" * 5000),
]


@pytest.mark.parametrize(("text", "number"), READ)
def test_a_number_is_read_exactly(text: str, number: Fraction) -> None:
    found = last_number(text)
    assert found is not None
    assert (found.value, found.why) == (number, "")


@pytest.mark.parametrize("text", LEFT)
def test_what_could_be_another_number_is_left_alone_with_a_reason(text: str) -> None:
    found = last_number(text)
    assert found is not None
    assert found.value is None
    assert found.why


def test_an_operation_is_not_called_a_word() -> None:
    """× and ÷ stand among the letters of Latin-1."""
    for text in ("3×4", "6÷2"):
        found = last_number(text)
        assert found is not None and found.why == "an unevaluated operation"


@pytest.mark.parametrize(
    ("why", "texts"),
    [
        ("an unevaluated operation", ("3!", r"\boxed{3!}", "It is $3!$", "so 3! ways", "5 π", r"2 \pi")),
        ("a date", ("2024-05-01", "on 2024/05/01", "01-05-2024")),
        ("a range, a choice or a difference", ("4-5-6", "2020-2024", "4 or 10")),
        ("an expression", (r"\frac12", r"\frac{1}2", r"\dfrac1{2}")),
        ("only digits are read, not number words or π", ("π", r"$\pi$", "it is pi", "five")),
        ("ambiguous: a space inside a number, or two numbers", ("12 345",)),
    ],
)
def test_the_reason_says_what_it_is(why: str, texts: tuple[str, ...]) -> None:
    """`3!` counted as 3, and was wrong where 6 was asked; `\\frac{1}2` as 2; a date was "a range"."""
    for text in texts:
        found = last_number(text)
        assert found is not None and (found.value, found.why) == (None, why), text


def test_no_number_is_no_number() -> None:
    assert last_number("no digits here") is None
    assert last_number("") is None
    assert last_number("No one knows, one might say.") is None
    assert last_number("It is one.") is not None


@pytest.mark.parametrize(
    "text", ["1," * 100_000, "\\frac{" * 30_000 + "1", "1" + " " * 200_000, "1/" * 100_000]
)
def test_a_megabyte_of_nonsense_is_read(text: str) -> None:
    """A pattern that takes quadratic time would hang here for minutes."""
    last_number(text)
