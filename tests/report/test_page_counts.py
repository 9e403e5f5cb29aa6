"""The figures of the page that are computed for it, by hand: pass@k, groups of rewards and lengths, cells."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from selfrefine.errors import DataError
from selfrefine.report.page.counts import (
    LEVELS,
    Answers,
    Row,
    TaskOf,
    bin_name,
    length_bin,
    level,
    pass_at_k,
    rows,
    training_log,
)


def row(task: str, reward: float | None, text: str = "x", tokens: int = 1, **more: object) -> Row:
    ids = msgspec.Raw(str(list(range(tokens))).encode())
    return msgspec.structs.replace(
        Row(id="a", task=TaskOf(id=task), text=text, reward=reward, token_ids=ids), **more
    )


def test_pass_at_k_is_the_unbiased_estimator_and_not_the_naive_power() -> None:
    """2 of 4 right: of the 6 pairs 1 has no right one, 5/6. The naive 1 - (1 - 1/2)^2 is 3/4."""
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6)
    assert pass_at_k(4, 2, 1) == 0.5
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 1, 4) == 1.0
    assert pass_at_k(200, 100, 100) == pytest.approx(1.0)  # no overflow


def test_pass_at_k_leaves_out_tasks_with_fewer_than_k_scored_answers() -> None:
    """Trap: an unscored answer counted as wrong. Task b has one scored answer and says nothing of k = 2."""
    counts = Answers()
    for one in (row("a", 1.0), row("a", 0.0), row("b", 1.0), row("b", None)):
        counts.add(one)
    assert counts.pass_at(1) == [0.5, 1.0]
    assert counts.pass_at(2) == [1.0]
    assert counts.most_samples() == 2


def test_rewards_are_grouped_with_both_ends_apart_and_no_score_is_no_zero() -> None:
    values = (0.0, 0.1, 0.25, 0.5, 0.75, 0.99, 1.0, None)
    shown = [LEVELS[level(value)] for value in values]
    assert shown == ["0", "0–0.25", "0.25–0.5", "0.5–0.75", "0.75–1", "0.75–1", "1", "no score"]


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        (0, "0"),
        (1, "1"),
        (2, "2"),
        (3, "3–4"),
        (4, "3–4"),
        (5, "5–8"),
        (8, "5–8"),
        (9, "9–16"),
        (1025, "1025–2048"),
    ],
)
def test_a_length_is_in_the_bin_that_its_name_says(tokens: int, name: str) -> None:
    assert bin_name(length_bin(tokens)) == name
    assert row("a", 1.0, tokens=tokens).tokens == tokens


def test_distinct_answers_are_counted_by_task_and_failed_ones_are_none() -> None:
    """Task a: two texts, one of them twice but for white space; task b: one. (2 + 1) / 2, of (3 + 1) / 2."""
    counts = Answers()
    failed = row("b", None, "", finish_reason="error")
    for one in (row("a", 1.0, "4"), row("a", 1.0, " 4 "), row("a", 0.0, "5"), row("b", 0.0, "4"), failed):
        counts.add(one)
    assert (counts.distinct, counts.per_task, counts.failed) == (1.5, 2.0, 1)
    assert counts.learnability == {"never right": 1, "sometimes right": 1, "always right": 0}


def test_a_long_training_log_is_drawn_in_stretches_whose_means_are_true(tmp_path: Path) -> None:
    """10 steps in at most 4 stretches: 3, 3, 3 and 1, at steps 2, 5, 8 and 10."""
    log = tmp_path / "train.jsonl"
    log.write_text("".join(f'{{"step":{i},"loss":{i}.0,"lr":0.1,"metrics":{{}}}}\n' for i in range(1, 11)))
    found = training_log(log, most=4)
    assert [(one.step, one.loss, one.grad_norm) for one in found] == [
        (2.0, 2.0, None), (5.0, 5.0, None), (8.0, 8.0, None), (10.0, 10.0, None)
    ]  # fmt: skip


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "gate.jsonl"
    file.write_text('{"id":"a","task":{"id":"t"},"text":"x"}\n{"id":"b","task"\n')
    with pytest.raises(DataError, match=r"gate\.jsonl:2"):
        list(rows(file))
