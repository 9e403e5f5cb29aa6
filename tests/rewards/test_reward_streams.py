"""What a reward of the user's does to the process and its streams, in real processes: the rows stay whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from harness import answer, environment, jsonl, selfrefine, task

ROWS = jsonl(answer("a.r0.s0"), answer("a.r0.s1", "4"))

ENDS = """
import os, signal, threading, time

def raises():
    raise ValueError("boom")

def threads(sample):  # a traceback per row
    one = threading.Thread(target=raises)
    one.start(), one.join()
    return 1.0

def forks(sample):
    if os.fork() == 0:
        return 0.1  # the child went on with the command, and wrote rows of its own
    return 1.0

def alarms(sample):  # whose default is to end the process
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    time.sleep(0.1)
    return 1.0

def closes(sample):  # the next row's files then had these numbers
    os.close(0), os.close(1), os.close(2)
    return 1.0
"""


def test_what_would_end_or_double_the_command_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ENDS)
    words = [sys.executable, "-m", "selfrefine", "reward"]
    for name in ("threads", "forks", "alarms", "closes"):
        words += ["-r", f"mine.py:{name}"]
    done = subprocess.run(
        words, input=ROWS, cwd=tmp_path, env=environment(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    rows = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert [[one["value"] for one in row["rewards"]] for row in rows] == [[1.0] * 4] * 2
    said = done.stderr.decode().splitlines()
    assert said[0] == "in a thread: ValueError: boom (mine.py:5)" and "boom" not in "".join(said[1:])
    assert said[-1].startswith("reward: 2 rows")  # stderr is itself again


TALKS = """
import os, subprocess, sys, threading, time

print("while it is read")

def speaks(sample):
    print("printed")
    os.write(1, b"written\\n")
    sys.__stdout__.write("around\\n"), sys.__stdout__.flush()
    subprocess.run(["echo", "a child"], check=True)
    return 1.0

def lingers(sample):
    threading.Thread(target=lambda: (time.sleep(0.2), print("later"), os.write(1, b"late"))).start()
    return speaks(sample)

def reads(sample):
    mine, child = sys.stdin.read(), subprocess.run(["cat"], stdout=subprocess.PIPE, check=True).stdout
    return float(mine == "" and child == b"" and os.read(0, 1) == b"")

def quits(sample):
    exit()  # site's closes sys.stdin, and the rows that were still to come with it
"""
KNOWN = jsonl(*({"prompt": "q", "text": t, "label": w} for t, w in (("a", "good"), ("b", "bad"))))
ASKED = jsonl(task("t0", "What is 1 + 1?", "2"))


def test_stdout_holds_rows_whatever_a_reward_or_its_child_prints(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(TALKS)
    (tmp_path / "known").write_bytes(KNOWN)
    mine = ["-r", "mine.py:speaks"]
    script = ["--model", "scripted"]
    for words, stdin, rows in (
        (["reward", *mine], ROWS, 2),
        (["reward", *mine, "--selftest", "known"], b"", 0),
        (["critique", *mine, *script], ROWS, 2),
        (["evaluate", *mine, *script], ASKED, 1),
    ):
        done = selfrefine(*words, stdin=stdin, cwd=tmp_path)
        out, err = capfd.readouterr()
        assert out == "" and "written\n" in err and "a child\n" in err, words
        assert "printed\n" in done.err, words
        assert len(done.rows) >= rows and (rows or done.out == b""), words


def test_stdin_is_no_rewards(tmp_path: Path) -> None:
    """A real pipe of more rows than are read at once: none may be eaten, and `exit()` may not close it."""
    (tmp_path / "mine.py").write_text(TALKS)
    rows = jsonl(*(answer(f"t{i}.r0.s0", "3" * 100) for i in range(2000)))
    for name, count in (("reads", 200), ("quits", 2000), ("lingers", 5)):
        command = [sys.executable, "-m", "selfrefine", "reward", "-r", f"mine.py:{name}"]
        given = b"".join(rows.splitlines(True)[:count])
        done = subprocess.run(command, input=given, capture_output=True, cwd=tmp_path, env=environment())
        written = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
        assert len(written) == count, done.stderr.decode()
        if name == "quits":
            assert done.returncode == 4 and b"on any of the 2,000 rows: SystemExit" in done.stderr
        else:
            assert done.returncode == 0 and {row["reward"] for row in written} == {1.0}
        assert (done.stderr.count(b"later"), done.stderr.count(b"around")) == (
            (5, 5) if count == 5 else (0, 0)
        )
