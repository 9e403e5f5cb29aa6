"""A batch may take minutes: what is done of it is counted while it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import answer, jsonl, selfrefine

from selfrefine.report.console import Progress


@pytest.fixture
def advanced(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What bars were told, call by call."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(Progress, "advance", lambda bar, **more: seen.append(more))
    return seen


def test_a_slow_reward_says_task_by_task_how_far_it_is(
    tmp_path: Path, advanced: list[dict[str, Any]]
) -> None:
    """Trap: 256 rows of a second and a half each, and "0 of 256 rows" for six minutes."""
    ids = ["a.r0.s0", "a.r0.s1", "b.r0.s0", "c.r0.s0", "c.r0.s1", "c.r0.s2"]
    done = selfrefine("reward", "-r", "numeric", stdin=jsonl(*map(answer, ids)), cwd=tmp_path)
    assert [row["id"] for row in done.rows] == ids
    assert [one["rows"] for one in advanced] == [2, 1, 3]
    advanced.clear()  # a task's rows that stand apart are scored together all the same: `majority` needs them
    ids = ["a.r0.s0", "b.r0.s0", "a.r0.s1"]
    done = selfrefine("reward", "-r", "numeric", stdin=jsonl(*map(answer, ids)), cwd=tmp_path)
    assert [row["id"] for row in done.rows] == ids
    assert [one["rows"] for one in advanced] == [3]


def test_critiques_count_their_tokens_before_the_first_row_is_done(
    tmp_path: Path, advanced: list[dict[str, Any]]
) -> None:
    rows = jsonl(*(answer(f"{task}.r0.s0") for task in "abc"))
    done = selfrefine("critique", "--model", "scripted", "-r", "numeric", stdin=rows, cwd=tmp_path)
    assert done.code == 0, done.err
    *before, last = advanced
    assert before and all(one["rows"] == 0 and one["tokens"] > 0 for one in before)
    assert last["rows"] == 3
