"""Commands that need no run: evaluate, select, doctor, and a reward's self-test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import answer, jsonl, selfrefine, task


def test_evaluate_alone(tmp_path: Path) -> None:
    """The built-in script is greedily right where the sum is no multiple of 3: 4, 5, 7 of 3, 4, 5, 6, 7."""
    asked = jsonl(*(task(f"t{i}", f"What is {i} + 1?", str(i + 1)) for i in range(2, 7)))
    words = ["evaluate", "--model", "scripted", "-m", "numeric"]
    done = selfrefine(*words, "-o", "rows.jsonl", "--summary-json", "s.json", stdin=asked, cwd=tmp_path)
    assert done.code == 0 and done.out == b"" and "0.600 [" in done.err
    told = json.loads((tmp_path / "s.json").read_text())
    assert (told["mean"], told["n"], told["unscored"]) == (0.6, 5, 0)
    assert told["lo"] == pytest.approx(0.2307, abs=1e-4)  # Wilson for 3 of 5
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in rows] == [0.0, 1.0, 1.0, 0.0, 1.0]
    piped = selfrefine(*words, stdin=asked, cwd=tmp_path)
    assert piped.rows[0] == told
    screen = selfrefine(*words, stdin=asked, cwd=tmp_path, terminal=True)
    assert screen.out == b"" and "0.600 [" in screen.err


def test_what_is_selected_already_cannot_be_selected_by_flags(tmp_path: Path) -> None:
    """The trap: finetune takes selected rows as they are, and --min-reward would be parsed and ignored."""
    rows = jsonl(*(answer(f"a.r0.s{i}", str(i), index=i, reward=float(i)) for i in range(2)))
    (tmp_path / "s.jsonl").write_bytes(rows)
    chosen = selfrefine("select", "s.jsonl", "--select", "all", "-o", "c.jsonl", cwd=tmp_path)
    assert chosen.code == 0, chosen.err
    done = selfrefine("finetune", "c.jsonl", "--min-reward", "1", "-o", "adapter", cwd=tmp_path)
    assert done.code == 2 and "already selected" in done.err
    assert not (tmp_path / "adapter").exists()


def test_select_alone(tmp_path: Path) -> None:
    rows = jsonl(*(answer(f"a.r0.s{i}", str(i), index=i, reward=i / 4) for i in range(4)))
    best = selfrefine("select", stdin=rows, cwd=tmp_path)
    assert [row["id"] for row in best.rows] == ["a.r0.s3"]
    words = ["--select", "threshold", "--min-reward", "0.5", "--summary-json", "s.json"]
    some = selfrefine("select", *words, stdin=rows, cwd=tmp_path)
    assert [row["id"] for row in some.rows] == ["a.r0.s2", "a.r0.s3"]
    assert json.loads((tmp_path / "s.json").read_text())["below"] == 2


def test_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfrefine.doctor import Check

    healthy = [
        Check(name="python", value="3.11"),
        Check(name="memory", value="1 GiB", status="warn", mend="x"),
    ]
    monkeypatch.setattr("selfrefine.doctor.facts", lambda runs, cache: healthy)
    done = selfrefine("doctor", cwd=tmp_path)
    assert done.code == 0 and [row["status"] for row in done.rows] == ["ok", "warn"]
    assert "→ x" in selfrefine("doctor", cwd=tmp_path, terminal=True).out.decode()
    sick = [*healthy, Check(name="disk", value="full", status="fail", mend="free some")]
    monkeypatch.setattr("selfrefine.doctor.facts", lambda runs, cache: sick)
    assert selfrefine("doctor", cwd=tmp_path).code == 5


def test_rewards_that_ask_a_model(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = jsonl(*(answer(f"a.r0.s{i}", str(i), index=i) for i in range(3)))
    words = ["reward", "-r", "p-true", "-r", "fluency", "--model", tiny_model_dir]
    done = selfrefine(*words, stdin=rows, cwd=tmp_path)
    assert done.code == 0, done.err
    values = [reward["value"] for row in done.rows for reward in row["rewards"]]
    assert len(values) == 6 and all(0 < value < 1 for value in values)
    assert len(set(values)) == 6  # each answer has its own


@pytest.mark.parametrize(("reward", "code"), [("good", 0), ("wrong_sign", 4), ("swapped", 4)])
def test_the_self_test_of_a_reward(reward: str, code: int, tmp_path: Path) -> None:
    """trl#2771's documented reward had the wrong sign, R-Zero#31 compared the reference with itself."""
    (tmp_path / "mine.py").write_text(
        "def good(s):\n    return float(s.text == s.task.references[0])\n"
        "def wrong_sign(s):\n    return float(s.text != s.task.references[0])\n"
        "def swapped(s):\n    return float(s.task.references[0] == '42')\n"
    )
    known = [{"prompt": "17 + 25?", "references": ["42"], "text": t, "label": w} for t, w in KNOWN]
    (tmp_path / "known.jsonl").write_bytes(jsonl(*known))
    done = selfrefine("reward", "--selftest", "known.jsonl", "-r", f"mine.py:{reward}", cwd=tmp_path)
    assert done.code == code and done.out == b""
    if code:
        assert "known.jsonl:1 (good) scores" in done.err and "known.jsonl:2 (bad)" in done.err
    else:
        assert "every good answer scores higher than every bad one" in done.err


KNOWN = [("42", "good"), ("43", "bad")]
