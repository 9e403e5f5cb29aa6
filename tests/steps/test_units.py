"""Commit units: the plan a resumed run must make again, so it depends on nothing but the rows."""

from __future__ import annotations

from collections.abc import Iterator

from selfrefine.records import Message, Sample, Task
from selfrefine.steps.units import ROWS, cut, sample_units


def sizes(groups: str, limit: int) -> list[str]:
    """Units of single-letter rows of cost 1; equal letters side by side are a group."""
    return ["".join(unit) for unit in cut(groups, lambda _: 1, limit, lambda row: row)]


def test_a_unit_ends_where_a_group_ends() -> None:
    """A group reward (majority vote) that sees half a group gives another number."""
    assert sizes("aabbccdd", 4) == ["aabb", "ccdd"]
    assert sizes("aabbccdd", 5) == ["aabb", "ccdd"]
    assert sizes("aabbccdd", 3) == ["aa", "bb", "cc", "dd"]
    assert sizes("abcde", 2) == ["ab", "cd", "e"]


def test_a_group_that_is_too_large_stands_alone() -> None:
    assert sizes("abbbbbc", 3) == ["a", "bbbbb", "c"]


def test_nothing_is_lost_doubled_or_moved() -> None:
    rows = "aabcccddddefggghh"
    for limit in range(1, 20):
        assert "".join(sizes(rows, limit)) == rows
    assert sizes("", 3) == []


def test_rows_are_a_limit_of_their_own() -> None:
    units = list(cut(range(ROWS * 2 + 1), lambda _: 0, 10, str))
    assert [len(unit) for unit in units] == [ROWS, ROWS, 1]


def test_a_costly_row_does_not_wait_for_a_full_unit() -> None:
    rows = [("a", 1), ("b", 1), ("c", 9), ("d", 1), ("e", 1)]
    units = cut(rows, lambda row: row[1], 4, lambda row: row[0])
    assert ["".join(name for name, _ in unit) for unit in units] == ["ab", "c", "de"]


def test_the_stream_is_read_only_as_far_as_needed() -> None:
    read: list[int] = []

    def rows() -> Iterator[int]:
        for i in range(100):
            read.append(i)
            yield i

    units = cut(rows(), lambda _: 1, 3, str)
    assert next(units) == [0, 1, 2]
    assert len(read) <= 5


def test_samples_of_a_task_stay_together() -> None:
    prompt = (Message(role="user", content="?"),)
    samples = [
        Sample(id=f"{t}.{k}", task=Task(id=t, prompt=prompt), index=k)
        for t in ("a", "b", "c")
        for k in range(4)
    ]
    units = list(sample_units(samples, tokens_each=10, limit=85))
    assert [[s.id for s in unit] for unit in units] == [
        [f"{t}.{k}" for t in "ab" for k in range(4)],
        [f"c.{k}" for k in range(4)],
    ]
