"""How near two texts are, counted by hand."""

from __future__ import annotations

import pytest

from selfrefine.steps.similarity import similarity


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("A dog runs.", "A dog runs.", 1.0),
        ("a dog runs .", "A  DOG runs.", 1.0),  # case and white space aside
        ("A dog runs.", "A dog runs with a ball.", 2 * 4 / (4 + 7)),  # a, dog, runs and the stop
        ("one two three", "three two one", 2 * 1 / 6),  # in their order
        ("red", "blue", 0.0),
        ("", "", 1.0),
        ("", "word", 0.0),
        ("狗在跑", "狗在跳", 2 * 2 / 6),  # without spaces: its characters
    ],
)
def test_share_of_common_words(before: str, after: str, expected: float) -> None:
    assert similarity(before, after) == pytest.approx(expected)
