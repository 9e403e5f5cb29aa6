"""`runs diff` names what differs and is short about what does not; `runs tail` follows a run to its end."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import made
import pytest
from harness import environment, refused, selfrefine
from hostile import HOSTILE, acting
from made import make, manifest, task

from selfrefine.query.follow import EventLines, Follower, sentence
from selfrefine.runfolder.part import PartFile
from selfrefine.runfolder.run import Run


def diff(folder: Path, a: str = "r", b: str = "other") -> dict[str, Any]:
    (found,) = selfrefine("runs", "diff", a, b, cwd=folder).rows
    return found


def test_a_run_differs_in_nothing_from_its_copy(mine: Path) -> None:
    shutil.copytree(mine / "runs/r", mine / "runs/other", symlinks=True)
    found = diff(mine)
    assert [found[part] for part in ("configuration", "environment", "data", "prompts")] == [[], [], [], {}]
    assert found["compared"]["pairs"][0]["found"]["difference"] == 0.0
    shown = selfrefine("runs", "diff", "r", "other", cwd=mine, terminal=True).out.decode()
    for part in ("configuration", "environment", "data", "prompts"):
        assert f"nothing differs in {part}" in shown
    assert "rolled back" in shown


def test_every_kind_of_difference(mine: Path) -> None:
    """One task changed, one moved from training to test: the two runs' test figures are not of one kind."""
    splits = {
        "train": [task("a", references=("4",)), task("d")],
        "gate": [task("c")],
        "test": [task("b")],
    }
    config = manifest("x").config | {"train": {"lr": 0.1}}
    make(
        mine,
        "other",
        splits=splits,
        config=config,
        packages={"python": "3.11.7", "torch": "2.10.0"},
        origins={"train.lr": "recipe"},
        prompts={"critique.md": "Look at {{ task }}, please\n"},
    )
    found = diff(mine)
    assert found["configuration"] == [
        {"key": "train.lr", "a": 0.001, "b": 0.1, "a_origin": "flag", "b_origin": "recipe"}
    ]
    assert {one["key"]: (one["a"], one["b"]) for one in found["environment"]} == {
        "packages.torch": ("2.9.0+cpu", "2.10.0"),
        "packages.numpy": ("2.1.0", None),
        "packages.peft": ("not installed", None),
    }
    by_split = {one["split"]: one for one in found["data"]}
    assert set(by_split) == {"train", "test"}
    train, test = by_split["train"], by_split["test"]
    assert (train["only_a"], train["only_b"], train["changed"]) == (1, 1, 1)
    assert (test["only_a"], test["only_b"], test["held_out_in_other"]) == (1, 1, 2)
    assert found["prompts"]["critique.md"][-2:] == ["+Look at {{ task }}, please", " "]
    assert found["rounds"][2]["a_outcome"] == "reject"
    shown = " ".join(selfrefine("runs", "diff", "r", "other", cwd=mine, terminal=True).out.decode().split())
    for words in ("0.001 (flag)", "held out here and trained on there", "+Look at"):
        assert words in shown


def test_a_run_that_has_not_ended_is_not_compared_and_says_so(mine: Path) -> None:
    shutil.copytree(mine / "runs/r", mine / "runs/other", symlinks=True)
    shutil.rmtree(mine / "runs/other/final")
    found = diff(mine)
    assert found["compared"] is None and "no final measurement" in found["not_compared"]
    assert (
        "no final measurement"
        in selfrefine("runs", "diff", "r", "other", cwd=mine, terminal=True).out.decode()
    )
    refused(selfrefine("runs", "diff", "r", "nothing", cwd=mine), 5, "no run")


def test_hostile_settings_and_templates_act_nowhere(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = "\n".join(value for value in HOSTILE.values() if len(value) < 4_000)
    config = manifest("x").config | {"generate": {"system": text}}
    make(mine, "other", config=config, prompts={"critique.md": text}, packages={text: text})
    shown = selfrefine("runs", "diff", "r", "other", cwd=mine, terminal=True).out.decode()
    assert acting(shown) == [] and "[/red]" in shown
    run = Run.open(mine / "runs/other")
    run.events.append("gate", round=3, outcome=text, reason=text, stage=text)
    run.events.append(text, why=text)
    for words in ([], ["--json"]):
        tailed = selfrefine("runs", "tail", "other", *words, cwd=mine, terminal=True)
        assert acting(tailed.out.decode()) == [] and "alert(1)" in tailed.out.decode()


# --- tail ------------------------------------------------------------------------------------------


class Held:
    """The lock of a run, as a process that works on it has it."""

    def __init__(self, run: Path) -> None:
        self.file = (run / ".lock").open("w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def gone(self) -> None:
        self.file.close()


ENDS: list[tuple[dict[str, Any] | None, int, str]] = [
    ({"kind": "end", "why": "3 rounds done"}, 0, "the run has ended: 3 rounds done"),
    ({"kind": "failed", "code": 7, "why": "loss is nan\nmore"}, 7, "failed (exit 7): loss is nan"),
    ({"kind": "stopped", "signal": 2}, 130, "continues it"),
    ({"kind": "stopped", "signal": 15}, 143, "continues it"),
    ({"kind": "cycle", "continued": True}, 137, "gone without a word"),
    ({"kind": "stage-command", "stage": "reward"}, 0, "its last command was reward"),
]


@pytest.mark.parametrize(("event", "code", "words"), ENDS)
def test_the_end_of_a_run_is_the_end_of_tail(
    event: dict[str, Any], code: int, words: str, mine: Path
) -> None:
    fields = dict(event)
    Run.open(mine / "runs/r").events.append(fields.pop("kind"), **fields)
    done = selfrefine("runs", "tail", "r", "-n", "1", cwd=mine)
    assert done.code == code and words in done.err, done.err
    assert len(done.out.splitlines()) == 1


def test_a_run_in_which_nothing_happened_yet(mine: Path) -> None:
    run = Run.create(mine / "runs" / "new", manifest("new"), made.SPLITS, {})
    done = selfrefine("runs", "tail", "new", cwd=mine)
    assert done.code == 0 and done.out == b"" and "nothing has happened" in done.err
    assert run.next_round() == 0


def test_half_a_line_waits_for_its_rest(tmp_path: Path) -> None:
    """Trap: a reader that takes what is there loses the event whose second half comes later."""
    path = tmp_path / "events.jsonl"
    lines = EventLines(path)
    assert lines.new() == []
    path.write_bytes(b'{"kind": "a"}\n{"kind": ')
    assert lines.new() == [{"kind": "a"}] and lines.new() == []
    with path.open("ab") as stream:
        stream.write(b'"b"}\n')
    assert lines.new() == [{"kind": "b"}]
    with path.open("r+b") as stream:  # half a line of a process that died is cut off, and another written
        stream.seek(0, os.SEEK_END)
        stream.write(b'{"ki')
    assert lines.new() == []
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 4)
        stream.seek(0, os.SEEK_END)
        stream.write(b'{"kind": "c"}\n')
    assert lines.new() == [{"kind": "c"}]


def test_what_is_told_of_a_stage_in_progress_and_of_a_commit(mine: Path) -> None:
    """By a clock of the test: 10 seconds after a stage was first seen, and then every 30."""
    now = 0.0
    run = Run.open(mine / "runs/r")
    follower = Follower(run, lambda: now)
    assert len(follower.earlier(2)) == 2
    assert list(follower.look()) == []
    with PartFile.open(run.round(3).file("generate")) as part:
        part.append([b"{}"] * 20)
        now = 9.0
        assert list(follower.look()) == []
        now = 10.0
        assert list(follower.look()) == ["         round 3 generate: 21 rows so far, 2 rows/s"]
        now = 39.0
        assert list(follower.look()) == []
        part.finish()
    run.round(3).commit(run.summary(2).__class__(index=3, policy_before="x", policy_after="x"))
    assert list(follower.look()) == ["         round 3 committed, 0 tokens sampled"]


def test_lines_are_sentences() -> None:
    event = {
        "time": "2026-01-02T03:04:05.678+00:00",
        "kind": "stage-end",
        "round": 2,
        "stage": "gate",
        "seconds": 7.25,
    }
    assert sentence(event) == "03:04:05 round 2 gate: done in 7.2 s"
    told = {
        "time": event["time"],
        "kind": "alarm",
        "round": "final",
        "stage": "test",
        "alarm": "x",
        "value": 0.5,
    }
    assert sentence(told) == "03:04:05 final test: alarm: alarm x, value 0.5"


def test_a_run_is_followed_while_it_goes_on_and_ctrl_c_only_ends_the_watching(mine: Path) -> None:
    run = Run.open(mine / "runs/r")
    lock = Held(run.path)
    words = [sys.executable, "-u", "-m", "selfrefine", "runs", "tail", "r", "-n", "1"]
    watched = [
        subprocess.Popen(words, cwd=mine, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in watched:
        assert process.stdout is not None
        assert b"round 2" in process.stdout.readline()  # the last event of before: it is watching now
    run.events.append("stage-begin", round=3, stage="reward")
    for process in watched:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b" round 3 reward: begins\n")
    watched[0].send_signal(signal.SIGINT)
    assert (watched[0].wait(10), watched[0].communicate()) == (130, (b"", b""))
    run.events.append("end", why="enough")
    lock.gone()
    out, err = watched[1].communicate(timeout=10)
    assert watched[1].returncode == 0 and out.endswith(b"end: enough\n") and b"has ended" in err


def test_json_is_the_events_as_they_are(mine: Path) -> None:
    found = selfrefine("runs", "tail", "r", "--json", "-n", "99", cwd=mine)
    told = [json.loads(line) for line in (mine / "runs/r/events.jsonl").read_text().splitlines()]
    assert found.rows == told
