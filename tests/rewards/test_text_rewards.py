"""exact, numeric, regex, length, repetition, critic, random: values worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
from making import made

from selfrefine.errors import ConfigError
from selfrefine.records import Critique, Message, Reward, Sample, Task


def sample(text: str, *references: str, **fields: Any) -> Sample:
    task = Task(id="t", prompt=(Message(role="user", content="?"),), references=references)
    return Sample(id="t.r0.s0", task=task, text=text, **fields)


def one(name: str, row: Sample, **settings: Any) -> Reward:
    rewards: list[Reward] = made(name, **settings).score([row])
    return rewards[0]


def test_exact_ignores_invisible_differences_only() -> None:
    assert one("exact", sample(" caf\u00e9  noir\n", "cafe\u0301 noir")).value == 1.0
    assert one("exact", sample("Paris.", "Paris")).value == 0.0
    assert one("exact", sample("paris", "Lyon", "Paris")).value == 0.0
    assert one("exact", sample("paris", "Lyon", "Paris"), ignore_case=True).value == 1.0


def test_numeric_reads_gsm8k_references_and_never_tells_them() -> None:
    reference = "She sells 16 - 3 = 13 eggs.\n13 * 2 = 26\n#### 26"
    assert one("numeric", sample("So it is 26.00 dollars", reference)).value == 1.0
    wrong = one("numeric", sample("26? No: 13", reference))
    assert wrong.value == 0.0
    assert wrong.detail == "the number 13 is wrong"
    assert one("numeric", sample("I do not know", reference)).detail == "no number in the answer"
    assert one("numeric", sample("0.33", "1/3")).value == 0.0
    assert one("numeric", sample("0.33", "1/3"), tolerance=0.01).value == 1.0


def test_numeric_without_a_number_in_the_reference_is_unscored_not_zero() -> None:
    reward = one("numeric", sample("26", "twenty-six"))
    assert (reward.value, reward.error) == (None, "no reference has a number")


@pytest.mark.parametrize(
    ("text", "reference", "value"),
    [
        # wrong answers that once scored 1: only a part of the reference or of the answer was read
        ("8", "5 / 8", 0.0),
        ("25", "6,25", 0.0),
        ("3", "7 cm^3", 0.0),
        ("So 2^5.", "5", None),
        ("It is between 4 and 5.", "5", None),
        ("2 million", "2", None),
        # right answers that once scored 0
        (r"\frac{-5}{8}", "-0.625", 1.0),
        ("The volume is 7 cm^3.", "7", 1.0),
        ("¾", "0.75", 1.0),
        ("Each pays €2,010.50.", "2010.5", 1.0),
        ("x = - 6", "-6", 1.0),
        ("7 = 4 + 3", "7", None),
        ("twelve", "12", None),
        ("0.5", "50%", None),
        ("50%", "50", 1.0),
        ("49%", "50%", 0.0),
        # several references: an equal one is enough, one that is not read leaves it open
        ("6", ("1.2.3", "6"), 1.0),
        ("7", ("1.2.3", "6"), None),
        ("7", ("six", "6"), 0.0),
    ],
)
def test_numeric_is_right_wrong_or_open_but_no_guess(
    text: str, reference: str | tuple[str, ...], value: float | None
) -> None:
    references = (reference,) if isinstance(reference, str) else reference
    assert one("numeric", sample(text, *references)).value == value


def test_numeric_says_which_side_is_not_read_and_tells_no_reference() -> None:
    assert "in the answer: a mixed" in str(one("numeric", sample("1 1/2", "1.5")).error)
    error = str(one("numeric", sample("8765", "8.765.432")).error)
    assert "in a reference" in error
    assert "8.765" not in error


@pytest.mark.parametrize("name", ["exact", "regex"])
def test_an_empty_reference_is_none(name: str) -> None:
    # "" equals an empty answer, and as a pattern it is found in every one.
    assert one(name, sample("", "", "Paris")).value == 0.0
    assert one(name, sample("Lyon", " ", "Paris")).value == 0.0
    assert one(name, sample("Paris", "", "Paris")).value == 1.0


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -0.5])
def test_a_tolerance_is_a_finite_number_from_0(wrong: float) -> None:
    # With an infinite tolerance every number is right.
    with pytest.raises(ConfigError, match=r"reward\.numeric\.tolerance"):
        made("numeric", tolerance=wrong)


def test_regex_uses_the_setting_or_the_references() -> None:
    assert one("regex", sample("id: AB-12"), pattern=r"[A-Z]{2}-\d+").value == 1.0
    assert one("regex", sample("id: AB-12"), pattern=r"[A-Z]{2}-\d+", full=True).value == 0.0
    assert one("regex", sample("colour", "^colou?r$")).value == 1.0
    bad = one("regex", sample("x", "secret("))
    assert bad.value is None
    assert "secret" not in str(bad.error)
    with pytest.raises(ConfigError, match=r"reward\.regex\.pattern"):
        made("regex", pattern="(")


def test_length_falls_in_proportion() -> None:
    assert one("length", sample("one two"), min=4).value == 0.5
    assert one("length", sample("a b c d e f"), max=4).value == 0.5
    assert one("length", sample("a b c d e f g h i"), max=4).value == 0.0
    assert one("length", sample("abc"), target=4, unit="chars").value == 0.75
    assert one("length", sample("a b c"), min=2, max=4).value == 1.0
    for wrong in ({}, {"target": 3, "max": 4}, {"min": 5, "max": 4}, {"max": 0}):
        with pytest.raises(ConfigError):
            made("length", **wrong)


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"reward\.length\.tarqet.*did you mean 'target'"):
        made("length", tarqet=3)


def test_repetition_counts_distinct_trigrams() -> None:
    # "go on and go on and": trigrams goa ona+go andgo goa -> 4, one repeats
    assert one("repetition", sample("Go on and go on and")).value == 0.75
    assert one("repetition", sample("all words differ here")).value == 1.0
    assert one("repetition", sample("a a a a"), n=1).value == 0.25
    assert one("repetition", sample("too short")).value == 1.0


def test_words_are_counted_only_where_spaces_divide_them() -> None:
    chinese = "红色的红色的红色的"
    for name, settings in (("length", {"max": 4}), ("repetition", {})):
        reward = one(name, sample(chinese), **settings)
        assert reward.value is None  # as one word it kept to any length and repeated nothing
        assert f"set reward.{name}.unit to chars" in str(reward.error)
    assert one("length", sample(chinese), target=9, unit="chars").value == 1.0
    # 红色的 色的红 的红色, and then again: 3 of 7 trigrams are distinct
    assert one("repetition", sample(chinese), unit="chars").value == pytest.approx(3 / 7)


def test_critic_takes_the_last_critique_even_when_it_has_no_score() -> None:
    scored, unparsed = Critique(score=0.6), Critique(score=None, error="no verdict in the text")
    assert one("critic", sample("x", critiques=(Critique(score=0.1), scored))).value == 0.6
    assert one("critic", sample("x", critiques=(scored, unparsed))).value is None  # not 0.6, not 0
    assert "no critique" in str(one("critic", sample("x")).error)


def test_the_placebo_depends_on_seed_and_row_only() -> None:
    rows = [sample("x"), sample("another text", "reference")]
    assert one("random", rows[0]).value == one("random", rows[1]).value
    values = []
    for i in range(400):
        row = Sample(id=f"t.r0.s{i}", task=rows[0].task, text="x")
        (reward,) = made("random", seed=5).score([row])
        values.append(reward.value or 0.0)
    assert len(set(values)) == 400
    assert abs(sum(values) / 400 - 0.5) < 0.06  # 4 standard errors of a uniform mean
    (other,) = made("random", seed=6).score([row])
    assert other.value != values[-1]
