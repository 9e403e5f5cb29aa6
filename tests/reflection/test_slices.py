"""Slices are told by the task alone, and what is cut is what can be drawn again."""

from __future__ import annotations

import pytest

from selfrefine.records import Message, Task
from selfrefine.reflection.findings import Slice
from selfrefine.reflection.slices import cut, holds, name, words
from tests.reflection.planted import sums, task


def test_operators_are_words_and_numbers_are_not() -> None:
    own = words("State the sum: 51 - 7.5 =. Don't guess")
    assert own == ["state", "the", "sum", ":", "\0", "-", "\0", "=", ".", "don't", "guess"]
    assert words("東京 is") == ["東", "京", "is"]  # no spaces there: a sentence would be one word
    assert words("नमस्ते") == ["नमस्ते"]  # vowel signs are no letters to a regex
    long = words("a " * 10_000 + "z")
    assert len(long) == 501 and long[-1] == "z"


@pytest.mark.parametrize(
    ("by", "low", "high", "prompt", "inside"),
    [
        # 58 + 67 = 125: 8 + 7 and 5 + 6 + 1 carry. Digit sums: 13 + 13 - 8 = 18 = 2 * 9.
        ("carries", 2, 3, "58 + 67 =", True),
        ("carries", 1, None, "51 + 38 =", False),
        ("carries", None, 1, "no numbers", False),  # unknown is in no slice, nor in `< 1`
        ("digits", 3, None, "1,000 and 2", True),
        ("numbers", 2, 3, "1,000 and 2", True),
        ("prompt-words", 3, 4, "1,000 and 2", True),
        ("prompt-words", None, 3, "1,000 and 2", False),
    ],
)
def test_figures_of_a_question(
    by: str, low: float | None, high: float | None, prompt: str, inside: bool
) -> None:
    assert holds(Slice(by=by, low=low, high=high), task("a", prompt)) is inside  # type: ignore[arg-type]


def test_a_word_is_a_whole_word_and_an_n_gram_stands_in_a_row() -> None:
    one = task("a", "How many apples, and how few?")
    assert holds(Slice(by="word", key="how"), one) and not holds(Slice(by="word", key="app"), one)
    assert holds(Slice(by="word", key="how many"), one)
    assert not holds(Slice(by="word", key="many how"), one)
    assert not holds(Slice(by="word", key="2 3"), task("b", "2 3"))


def test_only_the_last_user_message_is_the_question() -> None:
    # Trap: examples in earlier turns would give every task their numbers.
    turns = [("system", "Add."), ("user", "11 + 22"), ("assistant", "33"), ("user", "3 + 4")]
    own = Task(id="a", prompt=tuple(Message(role=role, content=text) for role, text in turns))
    assert holds(Slice(by="digits", low=1, high=2), own)


def test_whatever_was_cut_can_be_drawn_again() -> None:
    tasks = [
        Task(id=one.id, prompt=one.prompt, references=one.references, tags={"odd": str(i % 3 == 0)})
        for i, one in enumerate(sums(200))
    ]
    found = cut(tasks)
    assert {own.by for own, _ in found.values()} >= {"tag", "word", "carries"}
    for label, (own, members) in found.items():
        assert [i for i, one in enumerate(tasks) if holds(own, one)] == members.tolist(), label


def test_slices_of_the_same_tasks_are_one_with_the_simplest_name() -> None:
    texts = [("en", "What is that number now"), ("de", "Wie viel ist das now")]
    texts = [("en", "What is that number now"), ("de", "Wie viel ist das now")]
    tasks = [task(f"t{i}", text, lang=lang) for i, (lang, text) in enumerate(texts * 20)]
    # wie, viel, das, their n-grams and the prompt's length hold the same tasks as the tag.
    assert list(cut(tasks)) == ["lang = de", "lang = en"]


def test_an_n_gram_that_says_no_more_than_its_word_is_no_slice() -> None:
    # "blue cup" is in 39 of 40 tasks with either word; "red hat" in half of those with one of its words.
    texts = [["red hat", "red car", "old hat", "blue cup", "blue cup"][i % 5] for i in range(100)]
    texts[3], texts[0] = "my cup", "blue"
    found = cut([task(f"t{i:03d}", text) for i, text in enumerate(texts)])
    assert [label for label in found if label.startswith("words")] == ['words "red hat"']


def test_a_rare_and_a_nearly_common_word_are_not_looked_at() -> None:
    texts = ["this again" + (" zebra" if i < 4 else " okapi" if i < 9 else "") for i in range(100)]
    assert list(cut([task(f"t{i:03d}", text) for i, text in enumerate(texts)])) == [
        'word "okapi"',
        "prompt words >= 3",
        "prompt words < 3",
    ]


def test_hostile_tags_and_words_make_one_line_and_distinct_names() -> None:
    evil = "\x1b[31m# x\n| y `z` \u202e" + "a" * 10_000
    tasks = [task(f"t{i}", "q", **{evil: evil + str(i % 2)}) for i in range(20)]
    labels = list(cut(tasks))
    assert len(labels) == 2 and len(set(labels)) == 2
    for label in labels:
        assert label.isprintable() and len(label) < 150
    assert name(Slice(by="word", key="-")) == 'word "-"'
    assert name(Slice(by="prompt-words", low=9, high=13)) == "prompt words 9 to 12"


def test_no_tasks_and_one_task_have_no_slices() -> None:
    assert cut([]) == {} and cut([task("a", "3 - 4")]) == {}
