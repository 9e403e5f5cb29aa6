"""The table of what `sentence` accepts, refuses, and is known to get wrong."""

from __future__ import annotations

from typing import Any

import pytest
from making import made

from selfrefine.records import Message, Sample, Task
from selfrefine.rewards.sentence import why_not_a_sentence

GOOD = [
    "A dog runs after a cat across the field.",
    "A dog and a cat play with a ball in the park.",
    "Children play in the garden.",
    "The birds in the tree sing a song.",
    "The boy hit the ball with a bat.",
    "She is reading a book!",
    "The old man slowly walks to the store.",
    "The musician strummed his guitar.",
    "A clown unicycles across the stage.",
    "He didn't eat the apple.",
    "It's a lovely day.",
    "Mr. Smith eats 2.5 apples.",
    "Put the book on the shelf.",
    "The dog ran, jumped, and barked.",
    "In the morning, the farmer feeds the cows, pigs, and hens.",
    "The flute's melody filled the lane, echoing through the world and warming the stove.",
    '"A bird can fly over the bridge."',
]
BAD: list[Any] = [
    ("A flute, a lane, a stove, and a world.", "no finite verb"),
    ("A flute in a lane near a stove of the world.", "no finite verb"),
    ("Flute lane stove world.", "no finite verb"),
    ("Dog, run, cat, field.", "no finite verb"),
    ("Can, dog, tree, run.", "no finite verb"),
    ("The walk, the run, the jump.", "no finite verb"),
    ("The can, the will, the might.", "no finite verb"),
    ("Running through the field with a dog.", "no finite verb"),
    ("A dog runs. A cat sleeps.", "more than one sentence"),
    ("A dog runs.A cat sleeps.", "more than one sentence"),
    ("1. A dog runs", "more than one line, or a list"),
    ("- a dog runs.", "more than one line, or a list"),
    ("A dog runs.\nA cat sleeps.", "more than one line, or a list"),
    ("A dog runs after a", "no full stop at the end"),
    ("I see a flute, a lane, a stove, and a world.", "a list (3 bare nouns)"),
    ("There is a flute and a lane and a stove and a world.", "a list (3 bare nouns)"),
    ("  ", "empty"),
    pytest.param("very " * 200_000 + "play.", "too long for one sentence", id="long"),
]
PASSES_WRONGLY = ["A man dressed in red.", "A dog that runs.", "Colorless green ideas sleep furiously."]
FAILS_WRONGLY = [
    "The dog, tired, sleeps.",
    "A girl, a boy, a dog and a cat are in the garden.",
    "They unicycle.",
]


@pytest.mark.parametrize("text", GOOD)
def test_a_sentence_passes(text: str) -> None:
    assert why_not_a_sentence(text) is None


@pytest.mark.parametrize(("text", "why"), BAD)
def test_what_is_no_sentence_is_told_why(text: str, why: str) -> None:
    fault = why_not_a_sentence(text)
    assert fault is not None and fault.why == why


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  The dog runs. It barks.", "  The dog runs"),
        ('"Mr. Smith runs to a dog. Yes."', '"Mr. Smith runs to a dog'),
        ("A dog runs.\nA cat sleeps.", "A dog runs."),
        ("A dog runs after a", "A dog runs after a"),
        ("A dog in the park. ", "A dog in the park"),
        ("I see a flute, a lane, a stove, and a world.", "I see a flute, a lane"),
        ("- a dog runs.", ""),
        ("  ", ""),
    ],
)
def test_what_stands_before_the_fault_is_kept(text: str, kept: str) -> None:
    """A revision from the fault continues this; the trap is an abbreviation, whose dot must not move it."""
    fault = why_not_a_sentence(text)
    assert fault is not None and text[: fault.keep] == kept


def test_an_abbreviation_within_a_sentence_does_not_end_it() -> None:
    assert why_not_a_sentence("She eats fruit, e.g. an apple, at noon.") is None


def test_known_misses_are_still_as_documented() -> None:
    assert [text for text in PASSES_WRONGLY if why_not_a_sentence(text) is not None] == []
    assert [text for text in FAILS_WRONGLY if why_not_a_sentence(text) is None] == []


def test_the_reward_is_one_or_zero_with_the_reason() -> None:
    task = Task(id="t", prompt=(Message(role="user", content="?"),))
    rows = [Sample(id=str(i), task=task, text=text) for i, text in enumerate([GOOD[0], BAD[0][0]])]
    good, bad = made("sentence").score(rows)
    assert (good.value, good.detail) == (1.0, None)
    assert (bad.value, bad.detail) == (0.0, "no finite verb")
