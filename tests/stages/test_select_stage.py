"""The stage `select` says of every row what became of it, with the zeros that were looked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from harness import jsonl, selfrefine

from selfrefine.stages.select import SelectCounts
from selfrefine.steps.select_candidates import Reason


def row(task: str, suffix: str = "", **fields: object) -> dict[str, object]:
    prompt = [{"role": "user", "content": f"say {task}"}]
    made = {
        "id": f"{task}.r1.s0{suffix}",
        "task": {"id": task, "prompt": prompt},
        "messages": prompt,
        "round": 1,
        "index": 0,
        "text": f"text of {task}{suffix}",
        "finish_reason": "stop",
        "reward": 0.5,
    }
    return made | fields


def test_every_reason_has_a_field() -> None:
    """mypy holds the steps to `Reason`; a reason without a field would end a round with a TypeError."""
    assert {*get_args(Reason), "selected", "replayed", "proposals"} == set(SelectCounts.__struct_fields__)


def test_drafts_that_no_revision_followed_are_counted_beside_one_that_was_revised(tmp_path: Path) -> None:
    """A critic that said ok to one ended `select --learn revisions`, and constitutional runs, as a bug."""
    ok = {"text": "fine", "verdict": "ok", "finish_reason": "stop"}
    rows = [
        row("a"),
        row("a", ".v1", parent_id="a.r1.s0", reward=0.9),
        row("b", critiques=[ok]),
        row("c"),
    ]
    for words in (["--learn", "revisions"], ["--set", "select.candidates=revisions", "--min-reward", "0.1"]):
        done = selfrefine(
            "select", *words, "--summary-json", "s.json", "--json", stdin=jsonl(*rows), cwd=tmp_path
        )
        assert done.code == 0, done.err
        assert [one["id"] for one in done.rows] == ["a.r1.s0.v1"]
        told = json.loads((tmp_path / "s.json").read_text())
        assert (told["critiques_ok"], told["not_criticised"], told["over_the_cap"]) == (1, 1, 0)
        assert "replayed" not in told  # a filter has no earlier rounds


def test_an_empty_selection_says_why_in_its_summary_too(tmp_path: Path) -> None:
    """The file is what a script reads after exit code 8."""
    done = selfrefine("select", "--summary-json", "s.json", stdin=jsonl(row("a")), cwd=tmp_path)
    assert done.code == 8, done.err
    assert json.loads((tmp_path / "s.json").read_text())["prompts_without_spread"] == 1
