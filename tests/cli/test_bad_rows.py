"""Bad rows: the right exit code, one or two lines that say where, and nothing half-written."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from harness import answer, jsonl, refused, selfrefine, task, tree

GOOD = jsonl(answer("a.r0.s0"))
DEEP = b"[" * 1100 + b"]" * 1100
GOOD_TASK = jsonl(task("a"))
SAMPLE_VERBS = {
    "reward": ["reward", "-r", "numeric"],
    "critique": ["critique", "--model", "scripted"],
    "select": ["select"],
    "finetune": ["finetune", "--model", "scripted"],
}
TASK_VERBS = {
    "tasks": ["tasks", "-"],
    "generate": ["generate", "--model", "scripted"],
    "evaluate": ["evaluate", "--model", "scripted", "-m", "numeric"],
}


BAD_SAMPLES: dict[str, tuple[bytes, list[str]]] = {
    "not UTF-8": (GOOD + b'{"id": "b", "task": {}, "text": "caf\xe9"}\n', ["stdin:2", "not UTF-8"]),
    # A foreign column is passed on unread, so this one reached the output: a file that nobody can decode.
    "not UTF-8 in a column of somebody else": (
        GOOD[:-2] + b', "note": "caf\xe9"}\n',
        ["stdin:1", "not UTF-8"],
    ),
    "a broken line": (GOOD + b"\n{broken\n", ["stdin:3", "broken JSON line"]),
    "a torn line": (GOOD + GOOD.replace(b"a.r", b"b.r")[:40], ["stdin:2", "broken JSON line"]),
    "no object": (GOOD + b"[1, 2]\n", ["stdin:2", "not a JSON object"]),
    "half a surrogate pair in the text": (
        GOOD.replace(b'"text": "3"', b'"text": "\\ud83d"'),
        ["stdin:1", "lone surrogate"],
    ),
    "a column nested 1,100 deep": (
        GOOD[:-2] + b', "note": ' + DEEP + b"}\n",
        ["stdin:1", "nested too deeply"],
    ),
    "meta nested 1,100 deep": (
        GOOD.replace(b'"task": {', b'"task": {"meta": {"a": ' + DEEP + b"}, "),
        ["stdin:1", "nested too deeply"],
    ),
    "packed rows": (gzip.compress(GOOD), ["stdin", "gzip data"]),
    "UTF-16": (GOOD.decode().encode("utf-16"), ["stdin", "UTF-16 text; convert it to UTF-8"]),
    "UTF-16 without its mark": (GOOD.decode().encode("utf-16-le"), ["stdin:1", "convert it to UTF-8"]),
    "a row over several lines": (
        json.dumps(answer("a"), indent=1).encode(),
        ["stdin:1", "`jq -c .`"],
    ),
    "a JSON array": (b"[" + GOOD.strip() + b"]\n", ["stdin:1", "jq -c '.[]'"]),
    "a JSON array over several lines": (b"[\n" + GOOD + b"]\n", ["stdin:1", "jq -c '.[]'"]),
    "another program's task": (b'{"instruction": "Say hi."}\n', ["stdin:1"]),
    "NaN": (GOOD[:-2] + b', "reward": NaN}\n', ["stdin:1", "NaN is not a JSON number"]),
    "a number as text": (GOOD[:-2] + b', "reward": "0.5"}\n', ["stdin:1", "$.reward", "float"]),
    "a reward above one": (GOOD[:-2] + b', "reward": 5}\n', ["stdin:1", "$.reward", "<= 1.0"]),
    "an id twice": (GOOD + b"\n" + GOOD, ["stdin:3", "'a.r0.s0'", "stdin:1"]),
    "another schema version": (GOOD[:-2] + b', "v": 2}\n', ["stdin:1", "version 2", "reads version 1"]),
    "a task": (GOOD_TASK, ["stdin:1", "`selfrefine generate`"]),
    "another tool's row": (b'{"answer": "3"}\n', ["stdin:1", "no id, task, text"]),
}


@pytest.mark.parametrize("verb", SAMPLE_VERBS)
@pytest.mark.parametrize("what", BAD_SAMPLES)
def test_a_bad_answer_row_is_named_and_nothing_is_written(what: str, verb: str, tmp_path: Path) -> None:
    data, words = BAD_SAMPLES[what]
    refused(selfrefine(*SAMPLE_VERBS[verb], "-o", "out", stdin=data, cwd=tmp_path), 4, *words)
    assert tree(tmp_path) == []


BAD_TASKS: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", ["stdin", "no tasks"]),
    "blank lines only": (b"\n  \n", ["stdin", "no tasks"]),
    "not UTF-8": (GOOD_TASK + b'{"prompt": "caf\xe9"}\n', ["stdin:2", "not UTF-8"]),
    "a broken line": (GOOD_TASK + b"\n{broken\n", ["stdin:3", "broken JSON line"]),
    "a lone surrogate": (b'{"prompt": "\\ud83d"}\n', ["stdin:1", "lone surrogate"]),
    "a column nested 1,100 deep": (
        b'{"prompt": "x", "note": ' + DEEP + b"}\n",
        ["stdin:1", "nested too deeply"],
    ),
    "meta nested 1,100 deep": (
        b'\n{"prompt": "x", "meta": {"a": ' + DEEP + b"}}\n",
        ["stdin:2", "nested too deeply"],
    ),
    "packed rows": (gzip.compress(GOOD_TASK), ["stdin", "gzip data"]),
    "NaN": (b'{"prompt": "x", "score": NaN}\n', ["stdin:1", "NaN is not a JSON number"]),
    "an id twice": (GOOD_TASK + b"\n" + GOOD_TASK, ["stdin:3", "'a'", "stdin:1"]),
    "an answer": (GOOD, ["stdin:1", "this is an answer, not a task"]),
    "no prompt": (b'{"text_in": "x"}\n', ["stdin:1", "text_in", "--prompt-field"]),
    "a blank prompt": (b'{"prompt": " "}\n', ["stdin:1", "blank"]),
    "a JSON array": (b'[{"prompt": "x"}]\n', ["stdin:1", "jq -c '.[]'"]),
}


@pytest.mark.parametrize("verb", TASK_VERBS)
@pytest.mark.parametrize("what", BAD_TASKS)
def test_a_bad_task_row_is_named_and_nothing_is_written(what: str, verb: str, tmp_path: Path) -> None:
    data, words = BAD_TASKS[what]
    refused(selfrefine(*TASK_VERBS[verb], "-o", "out", stdin=data, cwd=tmp_path), 4, *words)
    assert tree(tmp_path) == []


def test_the_advice_for_a_csv_file_works_as_it_is_printed(tmp_path: Path) -> None:
    """An exported spreadsheet was "malformed: invalid character (byte 0)"."""
    for name, mark in (("t.csv", ","), ("t.tsv", "\t")):
        (tmp_path / name).write_text(f"prompt{mark}references\n1+1?{mark}2\n")
        done = selfrefine("tasks", name, cwd=tmp_path)
        refused(done, 4, f"{name}: CSV is not read")
        command = done.err.splitlines()[1].replace("python", sys.executable, 1)
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
        assert json.loads((tmp_path / "rows.jsonl").read_text()) == {"prompt": "1+1?", "references": "2"}


@pytest.mark.parametrize("what", ["a broken line", "an id twice", "not UTF-8"])
def test_a_bad_task_file_leaves_no_run_folder(what: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(BAD_TASKS[what][0])
    words = [word.replace("stdin", "t.jsonl") for word in BAD_TASKS[what][1]]
    setting = "tasks.source=t.jsonl"
    made = selfrefine("runs", "new", "x", "--model", "scripted", "--set", setting, *REWARD, cwd=tmp_path)
    refused(made, 4, *words)
    assert tree(tmp_path) == ["t.jsonl"]


REWARD = ["--set", 'reward.use=["numeric"]']


@pytest.mark.parametrize("verb", ["reward", "critique", "select"])
def test_an_empty_file_is_bad_data(verb: str, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    done = selfrefine(*SAMPLE_VERBS[verb], "empty.jsonl", "-o", "out", cwd=tmp_path)
    refused(done, 4, "empty.jsonl is empty")
    assert tree(tmp_path) == ["empty.jsonl"]


def test_finetune_on_nothing_is_nothing_to_learn_when_a_pipe_let_nothing_through(tmp_path: Path) -> None:
    """`… | jq 'select(.reward > 0.9)' | selfrefine finetune`: a filter's ordinary end, not bad data."""
    refused(selfrefine("finetune", "--model", "scripted", cwd=tmp_path), 8, "no row came through")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    refused(selfrefine("finetune", "empty.jsonl", cwd=tmp_path), 4, "empty.jsonl is empty")
    assert tree(tmp_path) == ["empty.jsonl"]


@pytest.mark.parametrize("verb", ["select", "finetune"])
def test_why_nothing_can_be_learnt_is_said_and_leaves_no_file(verb: str, tmp_path: Path) -> None:
    cases = {
        "no row has a reward": jsonl(answer("a", reward=None), answer("b", reward=None)),
        "cut off at max_new_tokens": jsonl(answer("a", reward=1, finish_reason="length")),
        "have the same reward": jsonl(answer("a.r0.s0", reward=1), answer("a.r0.s1", "4", reward=1)),
    }
    for words, data in cases.items():
        done = selfrefine(verb, "-o", "out", stdin=data, cwd=tmp_path)
        counts, why, tries = done.err.splitlines()
        assert done.code == 8 and words in why and tries.startswith("try ")
        assert counts.startswith("select: ") and counts.endswith("0 selected")
        assert tree(tmp_path) == []


def test_a_line_separator_inside_a_string_ends_no_row(tmp_path: Path) -> None:
    """str.splitlines cuts at U+2028, U+0085 and form feeds, which JSON strings may hold unescaped."""
    text = "3\u2028 and \u0085 three"
    rows = "".join(json.dumps(answer(id, text), ensure_ascii=False) + "\n" for id in "ab").encode()
    done = selfrefine("reward", "-r", "numeric", stdin=rows, cwd=tmp_path)
    assert done.code == 0 and [row["text"] for row in done.rows] == [text, text]
    question = json.dumps(task("a", "What\u2028is 1 + 2?"), ensure_ascii=False).encode()
    done = selfrefine("generate", "--model", "scripted", "-n", "1", stdin=question, cwd=tmp_path)
    assert [row["task"]["prompt"][0]["content"] for row in done.rows] == ["What\u2028is 1 + 2?"]


def test_windows_line_ends_and_a_byte_order_mark_are_no_errors(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n")
    assert selfrefine("reward", "-r", "numeric", stdin=data, cwd=tmp_path).rows[0]["reward"] == 1.0
    data = b"\xef\xbb\xbf" + GOOD_TASK.replace(b"\n", b"\r\n")
    assert selfrefine("tasks", "-", stdin=data, cwd=tmp_path).rows[0]["id"] == "a"


@pytest.mark.parametrize("verb", ["reward", "generate"])
def test_a_file_that_is_not_there(verb: str, tmp_path: Path) -> None:
    words = (SAMPLE_VERBS | TASK_VERBS)[verb]
    refused(
        selfrefine(*words, "nowhere.jsonl", "-o", "out", cwd=tmp_path), 4, "nowhere.jsonl", "No such file"
    )
    assert tree(tmp_path) == []


# --- rows that fail one by one -----------------------------------------------------------------------


REWARDS = """
def raises(sample):
    raise KeyError("gold")

def some(sample):
    if sample.text == "4":
        raise ValueError("four")
    return 1.0

def nan(sample):
    return float("nan")

def wrong_type(sample):
    return "0.5"
"""


@pytest.fixture
def rewards(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(REWARDS)
    return tmp_path


TWO = jsonl(answer("a.r0.s0"), answer("a.r0.s1", "4"))


def test_a_reward_function_that_raises_costs_its_row_only(rewards: Path) -> None:
    done = selfrefine("reward", "-r", "mine.py:some", "-o", "out", stdin=TWO, cwd=rewards)
    assert done.code == 0 and "(1 unscored)" in done.err
    first, second = map(json.loads, (rewards / "out").read_text().splitlines())
    assert first["reward"] == 1.0
    # A false 0 would be a lesson: the row is null, with the reason.
    assert second["reward"] is None and second["rewards"][0]["error"] == "ValueError: four"


@pytest.mark.parametrize(
    ("function", "reason"),
    [("raises", "KeyError: 'gold'"), ("nan", "nan is not a number"), ("wrong_type", "returned str")],
)
def test_when_every_row_fails_that_is_exit_4_and_no_file(function: str, reason: str, rewards: Path) -> None:
    done = selfrefine("reward", "-r", f"mine.py:{function}", "-o", "out", stdin=TWO, cwd=rewards)
    refused(done, 4, "any of the 2 rows", reason)
    assert tree(rewards) == ["mine.py"]


def test_a_failed_reward_keeps_the_file_that_was_there(rewards: Path) -> None:
    (rewards / "out").write_text("precious")
    selfrefine("reward", "-r", "mine.py:raises", "-o", "out", stdin=TWO, cwd=rewards)
    assert (rewards / "out").read_text() == "precious"


def test_missing_references_make_a_row_unscored_and_all_of_them_an_error(tmp_path: Path) -> None:
    bare = task("a") | {"references": []}
    one = jsonl(answer("a", task=bare), answer("b"))
    done = selfrefine("reward", "-r", "exact", stdin=one, cwd=tmp_path)
    assert done.code == 0
    assert [(row["reward"], row["rewards"][0]["error"]) for row in done.rows] == [
        (None, "no references"),
        (1.0, None),
    ]
    all_ = jsonl(answer("a", task=bare))
    refused(
        selfrefine("reward", "-r", "exact", "-o", "out", stdin=all_, cwd=tmp_path),
        4,
        "exact",
        "no references",
    )
    no_answer = jsonl(task("a") | {"references": []})
    measured = selfrefine(
        "evaluate", "--model", "scripted", "-m", "exact", "-o", "out", stdin=no_answer, cwd=tmp_path
    )
    refused(measured, 4, "exact", "no references")
    assert tree(tmp_path) == []


def test_a_prompt_longer_than_the_context_costs_its_rows_only(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = jsonl(task("a"), task("long", "x " * 600), task("c"))
    words = ["generate", "--model", tiny_model_dir, "-n", "2", "--max-new-tokens", "4"]
    done = selfrefine(*words, "--summary-json", "s.json", stdin=rows, cwd=tmp_path)
    assert done.code == 0 and "2 errors" in done.err
    assert [row["task"]["id"] for row in done.rows] == ["a", "a", "long", "long", "c", "c"]
    failed = done.rows[2]
    assert (failed["finish_reason"], failed["text"], failed["token_ids"]) == ("error", "", [])
    assert "context holds 512" in failed["error"]
    assert json.loads((tmp_path / "s.json").read_text())["errors"] == 2
    # Downstream: unscored, never 0, and never learnt from.
    scored = selfrefine("reward", "-r", "numeric", stdin=done.out, cwd=tmp_path)
    assert scored.rows[2]["reward"] is None and "no answer" in scored.rows[2]["rewards"][0]["error"]
    chosen = selfrefine(
        "select", "--select", "all", "--summary-json", "s.json", stdin=scored.out, cwd=tmp_path
    )
    assert json.loads((tmp_path / "s.json").read_text())["errors"] == 2
    assert all("long" not in row["id"] for row in chosen.rows)
