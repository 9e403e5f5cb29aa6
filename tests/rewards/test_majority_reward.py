"""The policy's own answers vote: where they agree there is a reward, without any reference."""

from __future__ import annotations

from typing import Any

import pytest
from making import made
from msgspec.structs import replace

from selfrefine.errors import ConfigError
from selfrefine.records import Message, Sample, Task
from selfrefine.steps.scoring import check_measure


def answers(*texts: str, task: str = "a") -> list[Sample]:
    asked = Task(id=task, prompt=(Message(role="user", content="What is 3 + 4?"),), references=("12",))
    return [Sample(id=f"{task}.r1.s{k}", task=asked, index=k, text=text) for k, text in enumerate(texts)]


def values(rows: list[Sample], **settings: Any) -> list[float | None]:
    return [reward.value for reward in made("majority", **settings).score(rows)]


def test_numbers_agree_by_value_and_the_reference_is_never_asked() -> None:
    """The reference says 12; three of five say 7, one of them as 7.0 and one after working."""
    rows = answers("7", "It is 7.0", "12", "3 + 4 = 7", "no idea")
    assert values(rows) == [1.0, 1.0, 0.0, 1.0, 0.0]
    [first, *_] = made("majority").score(rows)
    assert (first.detail, first.signature) == ("3 of 4 answers agree", "extract:number")


def test_a_number_that_cannot_be_read_is_neither_a_vote_nor_wrong() -> None:
    # As 2 the two mixed numbers would have outvoted the others.
    rows = answers("1 1/2", "1 1/2", "1 1/2", "7", "7", "12")
    assert values(rows) == [None, None, None, 1.0, 1.0, 0.0]


def test_a_shared_first_place_is_no_majority() -> None:
    """All different is the common case of a weak model: rewarding one of them would reward chance."""
    for rows in (answers("7", "8"), answers("1", "2", "3", "4"), answers("7", "7", "8", "8", "9")):
        rewards = made("majority").score(rows)
        assert {r.value for r in rewards} == {None}
        assert all("no majority" in (r.error or "") for r in rewards)
    assert values(answers("7")) == [None]  # one answer always agrees with itself
    assert values(answers("x", "y")) == [None, None]


def test_groups_do_not_vote_for_each_other() -> None:
    rows = answers("7", "7", "8") + answers("8", "8", "7", task="b")
    rows = [rows[i] for i in (0, 3, 1, 4, 2, 5)]
    assert values(rows) == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]


def test_what_was_cut_off_and_what_was_revised_has_no_vote_but_is_judged() -> None:
    rows = answers("7", "7", "8", "8", "8")
    rows[3] = replace(rows[3], finish_reason="length")
    rows[4] = replace(rows[4], id="a.r1.s2.v1", parent_id="a.r1.s2")
    assert values(rows) == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_texts_and_a_wanted_share() -> None:
    rows = answers("Paris", " paris ", "Lyon", "Nice")
    assert values(rows, extract="text") == [1.0, 1.0, 0.0, 0.0]
    assert values(rows, extract="text", min_share=0.5) == [1.0, 1.0, 0.0, 0.0]
    assert values(rows, extract="text", min_share=0.6) == [None] * 4
    with pytest.raises(ConfigError, match="extract"):
        values(rows, extract="words")


def test_agreement_with_oneself_measures_nothing() -> None:
    with pytest.raises(ConfigError, match="majority"):
        check_measure(["majority"])
