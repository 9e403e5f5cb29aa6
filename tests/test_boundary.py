"""Outside code that would end the process, or never end: a word of it, and never exit code 0 without rows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import answer, environment, jsonl, refused, selfrefine

from selfrefine.boundary import Failed, behind, no_silent_exit
from selfrefine.cli.guard import guarded
from selfrefine.errors import EngineError, Interrupted

ROWS = jsonl(answer("a.r0.s0"), answer("a.r0.s1"))


def test_a_file_that_exits_while_it_is_imported_ends_nothing(tmp_path: Path) -> None:
    """Trap: `os._exit(0)` ended the command with 0 and no row, and a pipe believed it."""
    (tmp_path / "mine.py").write_text("import os\nos._exit(0)\ndef f(sample): return 1.0\n")
    done = selfrefine("reward", "-r", "mine.py:f", stdin=ROWS, cwd=tmp_path)
    refused(done, 3, "mine.py does not import: SystemExit: os._exit(0)")


def test_a_reward_that_exits_costs_its_row_and_its_worker_may_exit(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\n"
        "def f(sample):\n"
        "    if sample.index:\n"
        "        os._exit(4)\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os._exit(3)\n"
        "    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) / 3\n"
    )
    rows = jsonl(answer("a.r0.s0", index=0), answer("a.r0.s1", index=1))
    done = selfrefine("reward", "-r", "mine.py:f", stdin=rows, cwd=tmp_path)
    assert done.code == 0, done.err
    assert [row["rewards"][0]["value"] for row in done.rows] == [1.0, None]
    assert done.rows[1]["rewards"][0]["error"] == "SystemExit: os._exit(4)"


def test_a_crash_in_c_code_names_the_line(tmp_path: Path) -> None:
    """Nothing can go on after it; without a word, nobody knows whose fault it was."""
    (tmp_path / "mine.py").write_text("import ctypes\ndef f(sample):\n    ctypes.string_at(0)\n")
    words = [sys.executable, "-m", "selfrefine", "reward", "-r", "mine.py:f"]
    done = subprocess.run(words, input=ROWS, cwd=tmp_path, env=environment(), capture_output=True)
    assert done.returncode == -signal.SIGSEGV and done.stdout == b""
    assert "Segmentation fault" in done.stderr.decode() and '"mine.py", line 3 in f' in done.stderr.decode()


def test_the_recursion_limit_is_what_it_was() -> None:
    """Trap: a reward that lowers it made a bug of the next deep call of ours."""
    before = sys.getrecursionlimit()
    with behind("x"):
        sys.setrecursionlimit(before // 2)
    assert sys.getrecursionlimit() == before


def test_code_that_catches_every_exception_is_told_how_to_be_stopped(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In one process nothing ends a loop with a bare `except`; silent, it looked like slow work."""
    caught, until = 0, time.monotonic() + 30
    with pytest.raises(Failed, match="no answer within"), behind("reward mine.py:f", 0.01):
        while caught < 6 and time.monotonic() < until:
            try:
                time.sleep(1)
            except BaseException:  # noqa: BLE001  what it is about
                caught += 1
    said = "reward mine.py:f: goes on after its time limit, because its code catches every exception"
    assert capfd.readouterr().err.count(said) == 1


@pytest.mark.parametrize("error", [TypeError("_value_ not set in __new__"), EngineError("cannot be loaded")])
def test_what_a_library_makes_of_a_ctrl_c_is_still_one(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trap: an enum that was being defined made a TypeError of it, and the command said "bug"."""

    def app() -> None:
        try:
            raise Interrupted("finetune: stopped by SIGINT; no adapter was written", signal.SIGINT)
        except Interrupted:
            raise error from None

    assert guarded(app) == 130
    assert capsys.readouterr().err == "finetune: stopped by SIGINT; no adapter was written\n"


def test_afterwards_a_process_can_exit_again() -> None:
    leave = os._exit
    with no_silent_exit(), pytest.raises(SystemExit, match=r"os\._exit\(7\)"):
        os._exit(7)
    assert os._exit is leave
