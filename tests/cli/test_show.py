"""`selfrefine show`: rows of any stage for a person, from a file or a pipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import answer, jsonl, refused, selfrefine, task

REWARDS = [{"name": "numeric", "value": 0.0, "detail": "the number 4 is wrong"}]
CRITIQUES = [{"text": "Count again.", "verdict": "revise", "score": 0.25}]
SCORED = jsonl(
    answer("a.r0.s0", "3", reward=1.0),
    answer("a.r0.s1", "4", reward=0.0, rewards=REWARDS, critiques=CRITIQUES, finish_reason="length"),
)


@pytest.mark.parametrize("door", ["file", "stdin"])
def test_answers_stand_below_their_prompt_with_reward_and_critique(door: str, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_bytes(SCORED)
    found = selfrefine(
        "show",
        *(["s.jsonl"] if door == "file" else []),
        stdin=SCORED if door == "stdin" else b"",
        cwd=tmp_path,
    )
    assert (found.code, found.err) == (0, "")
    lines = [line.strip() for line in found.out.decode().splitlines()]
    assert lines[1:] == [
        "user: What is 1 + 2?",
        "reference: 3",
        "a.r0.s0 · reward 1.000",
        "3",
        "a.r0.s1 · reward 0.000 · truncated",
        "4",
        "numeric 0.000 (the number 4 is wrong)",
        "critique 0 (revise 0.250): Count again.",
    ]
    assert b"\x1b" not in found.out and b" \n" not in found.out  # plain, for less and for grep


def test_the_lesson_of_a_selected_row_is_said(tmp_path: Path) -> None:
    pair = [{"role": role, "pair": "a.p0"} for role in ("chosen", "rejected")]
    rows = jsonl(answer("a.r0.s0", "3", lesson=pair[0]), answer("a.r0.s1", "4", lesson=pair[1]))
    out = selfrefine("show", stdin=rows, cwd=tmp_path).out.decode()
    assert "a.r0.s0 · chosen · pair a.p0" in out and "a.r0.s1 · rejected · pair a.p0" in out


def test_tasks_preferences_and_any_other_lines_are_shown(tmp_path: Path) -> None:
    rows = jsonl(task("a"), {"prompt": "2+2?", "chosen": "4", "rejected": "5"}, {"step": 1, "loss": 0.5})
    out = selfrefine("show", stdin=rows, cwd=tmp_path).out.decode()
    assert "user: What is 1 + 2?" in out
    assert out.index("user: 2+2?") < out.index(".chosen · chosen") < out.index(".rejected · rejected")
    assert '"loss": 0.5' in out


def test_some_rows_can_be_asked_for(tmp_path: Path) -> None:
    assert b"a.r0.s1" not in selfrefine("show", "-n", "1", stdin=SCORED, cwd=tmp_path).out
    one = selfrefine("show", "--id", "a.r0.s1", stdin=SCORED, cwd=tmp_path)
    assert b"a.r0.s1" in one.out and b"a.r0.s0" not in one.out
    refused(selfrefine("show", "--id", "b", stdin=SCORED, cwd=tmp_path), 4, "'b'")


def test_foreign_text_does_not_act_on_a_terminal(tmp_path: Path) -> None:
    rows = jsonl(answer("a.r0.s0", "\x1b[2Jgone"))
    for terminal in (True, False):
        out = selfrefine("show", "-", stdin=rows, cwd=tmp_path, terminal=terminal).out.decode()
        assert "␛[2Jgone" in out


def test_what_cannot_be_shown_says_why(tmp_path: Path) -> None:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    done = selfrefine("show", "demo", cwd=tmp_path)
    refused(done, 2, "demo is a folder: name a JSON Lines file in it")
    assert "runs show" not in done.err  # it is no run
    (tmp_path / "runs" / "demo" / "manifest.json").touch()
    refused(selfrefine("show", "demo", cwd=tmp_path), 2, "or the run: selfrefine runs show demo")
    refused(selfrefine("show", "runs/demo", cwd=tmp_path), 2, "selfrefine runs show runs/demo")
    refused(selfrefine("show", ".", cwd=tmp_path), 2, ". is a folder: name a JSON Lines file in it")
    refused(selfrefine("show", "no.jsonl", cwd=tmp_path), 4, "no.jsonl: No such file")
    refused(selfrefine("show", stdin=b"{broken\n", cwd=tmp_path), 4, "stdin:1")
    assert selfrefine("show", stdin=None, cwd=tmp_path).code == 2  # a keyboard, and nothing typed
