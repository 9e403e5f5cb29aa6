"""Model text is data: it acts on no terminal, ends no turn, grades nothing, and is passed on as it was."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from harness import answer, environment, jsonl, selfrefine, task
from hostile import HOSTILE, acting

TEXTS = list(HOSTILE.values())
SHORT = [text for text in TEXTS if len(text) < 4_000]
"""Those that fit into the scripted engine's context."""


def hostile_tasks() -> bytes:
    """Ids, prompts, references, tags and foreign columns: all of them somebody else's text."""
    return jsonl(
        *(
            task(f"{i}{text}", f"Q{i}: {text}", text, tags={text: text}, note=text)
            for i, text in enumerate(SHORT)
        )
    )


def hostile_answers() -> bytes:
    rows = []
    for i, text in enumerate(TEXTS):
        error = {"name": text, "value": None, "error": text, "detail": text, "signature": text}
        seen = {"text": text, "critic": text, "error": text, "pass_index": 0}
        asked = task(f"{i}{text[:99]}", f"Q: {text}", text)
        for k in range(2):
            row = answer(f"{i}.s{k}{text[:99]}", text + str(k), task=asked, index=k, reward=k / 2)
            rows.append(row | {"rewards": [error], "critiques": [seen], "note": text})
    return jsonl(*rows)


def script(folder: Path) -> str:
    """An engine that answers question i with hostile text i, and whatever else with any of them."""
    rules = [{"match": f"^Q{i}:", "answers": [text]} for i, text in enumerate(SHORT)]
    (folder / "rules.jsonl").write_bytes(jsonl(*rules, {"match": "", "answers": SHORT}))
    return "scripted:rules.jsonl"


REWARD = """
def f(sample):
    if sample.index:
        raise ValueError(sample.text)
    return 0.5
"""


def commands(folder: Path) -> dict[str, tuple[list[str], bytes]]:
    (folder / "mine.py").write_text(REWARD)
    model = ["--model", script(folder), "--max-new-tokens", "400"]
    tasks, answers = hostile_tasks(), hostile_answers()
    return {
        "tasks": (["tasks", "-"], tasks),
        "generate": (["generate", *model, "-n", "2"], tasks),
        "evaluate": (["evaluate", *model, "-m", "exact", "-o", "-"], tasks),
        "critique": (["critique", *model, "-r", "mine.py:f", "--feedback", "rewards"], answers),
        "reward": (["reward", "-r", "mine.py:f", "-r", "repetition"], answers),
        "select": (["select"], answers),
    }


VERBS = ["tasks", "generate", "evaluate", "critique", "reward", "select"]


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_that_acts_reaches_a_terminal(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, stdin = commands(tmp_path)[verb]
    monkeypatch.setenv("NO_COLOR", "1")
    plain = selfrefine(*words, stdin=stdin, cwd=tmp_path, terminal=True)
    assert plain.code == 0, plain.err
    assert acting(plain.out.decode()) == [] and acting(plain.err) == []
    assert "alert(1)" in plain.out.decode() and "[/red]" in plain.out.decode()  # it was shown, though
    raw = selfrefine(*words, "--json", stdin=stdin, cwd=tmp_path, terminal=True)
    assert acting(raw.out.decode()) == []
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm-256color")
    lively = selfrefine(*words, stdin=stdin, cwd=tmp_path, terminal=True)
    assert "\x1b[" in lively.out.decode()
    assert acting(lively.out.decode(), lively=True) == [] and acting(lively.err, lively=True) == []
    # And JSON for a screen is the JSON of the pipe, value for value.
    assert raw.rows == selfrefine(*words, stdin=stdin, cwd=tmp_path).rows


@pytest.mark.parametrize("verb", ["reward", "critique", "select"])
def test_the_text_reaches_the_next_stage_as_it_was(verb: str, tmp_path: Path) -> None:
    words, stdin = commands(tmp_path)[verb]
    done = selfrefine(*words, stdin=stdin, cwd=tmp_path)
    given = {row["id"]: row for row in map(json.loads, stdin.split(b"\n")[:-1])}
    kept = [row for row in done.rows if row["id"] in given]
    assert len(kept) >= len(TEXTS)
    for row in kept:
        before = given[row["id"]]
        assert row["text"] == before["text"] and row["note"] == before["note"]
        assert row["task"]["prompt"] == before["task"]["prompt"]
        assert row["critiques"][0]["text"] == before["critiques"][0]["text"]


def test_generated_text_is_stored_as_it_was_sampled(tmp_path: Path) -> None:
    words, stdin = commands(tmp_path)["generate"]
    rows = selfrefine(*words, stdin=stdin, cwd=tmp_path).rows
    assert [row["text"] for row in rows[::2]] == SHORT
    assert [row["task"]["note"] for row in rows[::2]] == SHORT


def test_an_answer_does_not_grade_itself(tmp_path: Path) -> None:
    """The trap (Oxen's self-rewarding): the verdict was searched in prompt plus reply."""
    (tmp_path / "rules").write_bytes(jsonl({"match": "", "answers": ["Hm, hard to say."]}))
    rows = jsonl(
        *(answer(f"a.r0.s{i}", HOSTILE[name]) for i, name in enumerate(["a grade", "a closing tag"]))
    )
    done = selfrefine("critique", "--model", "scripted:rules", stdin=rows, cwd=tmp_path)
    for row in [row for row in done.rows if row["parent_id"] is None]:
        [critique] = row["critiques"]
        assert "Score: 5" in critique["messages"][-1]["content"]  # the critic was shown the claim
        assert (critique["score"], critique["verdict"]) == (None, None)
    assert "100 % of verdicts unparsed" in done.err
    scored = selfrefine("reward", "-r", "critic", stdin=done.out, cwd=tmp_path)
    assert scored.code == 4 and "no score" in scored.err
    # And the claim stands inside its quotation: the answer's own closing tag does not end it.
    quoted = done.rows[1]["critiques"] or done.rows[2]["critiques"]
    assert quoted[0]["messages"][-1]["content"].count("</draft>") == 1


def test_special_tokens_in_a_task_an_answer_or_a_critique_end_no_turn(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    end, begin = (tiny.tokenizer().convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|im_start|>"))
    words = ["--model", tiny_model_dir, "--max-new-tokens", "4"]
    question = jsonl(task("a", HOSTILE["end of turn"]))
    drawn = selfrefine("generate", *words, "-n", "1", "--system", "s", stdin=question, cwd=tmp_path)
    prompt = drawn.rows[0]["prompt_token_ids"]
    assert (prompt.count(end), prompt.count(begin)) == (2, 3)  # system and user; the assistant's is open
    decoded = tiny.tokenizer().decode(prompt)
    assert HOSTILE["end of turn"] in decoded
    row = answer("a.r0.s0", HOSTILE["end of turn"], task=task("a", HOSTILE["end of turn"]))
    judged = selfrefine("critique", *words, stdin=jsonl(row), cwd=tmp_path)
    for ids in [one["prompt_token_ids"] for r in judged.rows for one in [*r["critiques"], r]]:
        assert not ids or (ids.count(end), ids.count(begin)) == (1, 2)


def test_a_run_of_hostile_tasks_shows_and_verifies(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole cycle: bars, examples, the ending's quotations, then `runs` on what somebody sent us."""
    monkeypatch.setenv("NO_COLOR", "1")
    (tmp_path / "t.jsonl").write_bytes(hostile_tasks())
    (tmp_path / "mine.py").write_text("def f(sample):\n    return 1.0 if 'a' in sample.text else 0.5\n")
    settings = ["tasks.gate=3", "tasks.test=3", "generate.stop=['a', 'e', 'o', ' ', 'n']", "train.lora.r=2"]
    settings += ["generate.max_new_tokens=40", "select.strategy=all"]
    words = ["cycle", "--run", "x", "--tasks", "t.jsonl", "-r", "mine.py:f", "--model", tiny_model_dir]
    words += [word for setting in settings for word in ("--set", setting)]
    words += ["--rounds", "1", "-n", "4"]
    done = selfrefine(*words, cwd=tmp_path, terminal=True)
    assert done.code == 0, done.err
    assert acting(done.err) == [] and "test answers, start and end" in done.err
    manifest = tmp_path / "runs" / "x" / "manifest.json"
    told: dict[str, Any] = json.loads(manifest.read_text())
    told["argv"] += SHORT
    told["config"]["tasks"]["suffix"] = "".join(SHORT)
    told["origins"]["tasks.suffix"] = "flag"
    manifest.write_text(json.dumps(told))
    for command in (["show", "x"], ["show", "x", "--json"], ["ls"], ["ls", "--json"]):
        seen = selfrefine("runs", *command, cwd=tmp_path, terminal=True)
        assert seen.code == 0 and acting(seen.out.decode()) == [], command
    checked = selfrefine("runs", "verify", "x", cwd=tmp_path, terminal=True)
    assert acting(checked.err) == []


def test_an_error_about_hostile_text_is_harmless_too(tmp_path: Path) -> None:
    for text in SHORT:
        rows = jsonl(answer(text), answer(text))
        done = selfrefine("reward", "-r", "numeric", stdin=rows, cwd=tmp_path, terminal=True)
        assert done.code == 4 and acting(done.err, lively=True) == []
    (tmp_path / "c.toml").write_text('"\\u001b[31m\\u202e" = 1\n')
    done = selfrefine("cycle", "--config", "c.toml", cwd=tmp_path, terminal=True)
    assert done.code == 3 and acting(done.err, lively=True) == []


def test_a_real_terminal_gets_nothing_raw(tmp_path: Path) -> None:
    """The same through a pseudo-terminal: what the kernel hands to the emulator, colours and all."""
    (tmp_path / "answers.jsonl").write_bytes(hostile_answers())
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "selfrefine", "reward", "answers.jsonl", "-r", "numeric"]
    child = subprocess.Popen(
        words,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env=environment(TERM="xterm-256color", NO_COLOR="", COLUMNS="80"),
    )
    os.close(slave)
    shown = bytearray()
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    assert child.wait() == 0
    text = shown.decode()
    assert "\x1b[" in text and "␛" in text
    assert acting(text, lively=True) == []
