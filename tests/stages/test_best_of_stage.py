"""Answering with a verifier, as a filter and in a run: one row a task, the tokens of all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import jsonl, refused, selfrefine, task
from test_two_doors import SETTINGS, sets, told

# 7 is drawn five times in eight; the model believes in it as little as in anything else.
ANSWERS = ["7", "7", "7", "7", "7", "8", "9", "4"]
JUDGE = {"match": "Is the answer above right", "answers": ["Yes", "No", "No", "No"]}
SCRIPT = ["--model", "scripted:script.jsonl"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [task(f"t{i:02}", f"say {i}", "7") for i in range(20)]
    (tmp_path / "t.jsonl").write_bytes(jsonl(*rows))
    (tmp_path / "script.jsonl").write_bytes(jsonl(JUDGE, {"match": "", "answers": ANSWERS}))
    return tmp_path


def generated(folder: Path, *words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    done = selfrefine("generate", "t.jsonl", *SCRIPT, *words, "--summary-json", "s.json", cwd=folder)
    assert done.code == 0, done.err
    return done.rows, json.loads((folder / "s.json").read_text())


def test_one_sample_of_n_is_written_and_all_are_counted(folder: Path) -> None:
    every, _ = generated(folder, "-n", "8")
    rows, summary = generated(folder, "--best-of", "8", "--by", "majority")
    assert [row["task"]["id"] for row in rows] == [f"t{i:02}" for i in range(20)]
    # The very samples of -n 8: a chosen one is reproduced from its own seed.
    by_id = {row["id"]: row for row in every}
    assert all({k: v for k, v in row.items() if k != "best_of"} == by_id[row["id"]] for row in rows)
    assert (summary["samples"], summary["dropped"]) == (160, 140)
    assert summary["tokens"] == sum(len(row["token_ids"]) for row in every) == 320
    assert "scored_tokens" not in summary
    for row in rows:
        texts = [one["text"] for one in every if one["task"]["id"] == row["task"]["id"]]
        assert row["best_of"]["votes"] == max(map(texts.count, texts)) == texts.count(row["text"])


def test_p_true_scores_each_distinct_answer_once_and_says_what_that_read(folder: Path) -> None:
    every, _ = generated(folder, "-n", "8")
    rows, summary = generated(folder, "--best-of", "8", "--by", "p-true")
    assert {row["best_of"]["score"] for row in rows} == {0.25}  # one Yes to three No
    assert {row["index"] for row in rows} == {0}  # all are believed alike: the first
    # Four markers and three ends, a digit, the question of 58, and "say 0" or "say 10".
    distinct = {(row["task"]["id"], row["text"]) for row in every}
    assert summary["scored_tokens"] == sum(66 + len(f"say {int(id[1:])}") for id, _ in distinct)


def test_batches_do_not_change_what_is_chosen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = generated(folder, "--best-of", "4", "--by", "weighted-vote")
    from selfrefine.engines.scripted import Scripted

    monkeypatch.setattr(Scripted, "unit_tokens", 4 * 128)  # a task a unit
    assert generated(folder, "--best-of", "4", "--by", "weighted-vote")[0] == whole


def test_evaluate_measures_the_chosen_answers(folder: Path) -> None:
    words = ["evaluate", "t.jsonl", "-m", "numeric", *SCRIPT, "--temperature", "1", "--json"]
    one = selfrefine(*words, cwd=folder).rows[0]
    more = ["--best-of", "16", "-o", "rows.jsonl", "--summary-json", "s.json"]
    best = selfrefine(*words, *more, cwd=folder)
    assert best.code == 0, best.err
    found = json.loads((folder / "s.json").read_text())
    assert one["mean"] < 0.9 < found["mean"] and found["n"] == 20
    assert (found["best_of"], found["by"], found["tokens"], found["scored_tokens"]) == (
        16,
        "majority",
        640,
        0,
    )
    assert "best of 16 by majority, 640 tokens sampled" in best.err
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 20 and all(row["best_of"]["of"] == 16 and row["reward"] is not None for row in rows)


def test_a_run_measures_so_at_its_start_and_its_end_and_the_row_count_stays(folder: Path) -> None:
    own = ["evaluate.best_of=16", "evaluate.temperature=1", 'reward.use=["numeric"]', "cycle.rounds=0"]
    done = selfrefine("cycle", *SCRIPT, *sets(*SETTINGS, *own), "--run", "r", cwd=folder)
    assert done.code == 0, done.err
    summary = told(folder, "round-000/gate.json")
    assert (summary["dropped"], summary["cost"]["measured_tokens"]) == (60, 128)
    rows = (folder / "runs/r/round-000/gate.jsonl").read_text().splitlines()
    assert len(rows) == 4 and json.loads(rows[0])["best_of"]["of"] == 16


def test_in_a_run_select_chooses_what_is_trained_on(folder: Path) -> None:
    own = sets(*SETTINGS[:-2], "generate.best_of=4", 'reward.use=["numeric"]')
    refused(selfrefine("cycle", *SCRIPT, *own, "--run", "r", cwd=folder), 3, "evaluate.best_of", "select")


def test_flags_that_contradict_each_other_are_refused_before_a_row_is_read(folder: Path) -> None:
    for words, said in (
        (["generate", "t.jsonl", "--best-of", "4", "-n", "3"], "leave out generate.n"),
        (["generate", "t.jsonl", "--by", "p-true"], "set generate.best_of"),
        # What is said is not ignored because it is the default, too.
        (["generate", "t.jsonl", "--by", "majority"], "set generate.best_of"),
        (["generate", "t.jsonl", "--best-of", "4", "-n", "8"], "leave out generate.n"),
        (["evaluate", "t.jsonl", "-m", "numeric", "--best-of", "4"], "set evaluate.temperature=1"),
        (["generate", "t.jsonl", "--best-of", "4", "--by", "vote"], "weighted-vote"),
    ):
        refused(selfrefine(*words, *SCRIPT, cwd=folder), 3, said)
