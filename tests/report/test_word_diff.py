"""A draft and its revision, word by word."""

from __future__ import annotations

import pytest

from selfrefine.report.word_diff import word_diff


def test_a_changed_word_is_told_from_what_stayed() -> None:
    assert word_diff("a dog runs", "a cat runs") == [
        ("same", "a "),
        ("gone", "dog "),
        ("new", "cat "),
        ("same", "runs"),
    ]


def test_chinese_is_compared_letter_by_letter() -> None:
    # By spaces the sentence is one word, and one changed letter would mark all of it.
    assert word_diff("我有猫", "我有狗") == [("same", "我有"), ("gone", "猫"), ("new", "狗")]


@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("", "new text"), (" a\n\n b", "a b \n"), ("x " * 300, "y x " * 200)]
)
def test_both_texts_come_back_to_the_letter(before: str, after: str) -> None:
    parts = word_diff(before, after)
    assert "".join(part for kind, part in parts if kind != "new") == before
    assert "".join(part for kind, part in parts if kind != "gone") == after
