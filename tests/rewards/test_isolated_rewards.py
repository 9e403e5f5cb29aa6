"""`reward.isolate`: what ends a reward's process costs the rows of one call, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import answer, environment, jsonl, refused, selfrefine
from making import LIMITS, samples, scored

from selfrefine.rewards.base import Limits

ROWS = jsonl(answer("a.r0.s0"), answer("a.r0.s1", "4"))


CRASHES = """
import ctypes, os, signal, subprocess, threading, time

def exits(sample):
    if sample.index == 1:
        os._exit(7)
    return 1.0

def segfaults(sample):
    if sample.index == 1:
        ctypes.string_at(0)
    return 1.0

def grows(sample):
    return float(len(bytearray(8 << 30)) > 0) if sample.index == 1 else 1.0

def burns(sample):
    while sample.index == 1:
        pass
    return 1.0

def holds(sample):  # a C function that keeps the interpreter: no signal handler of Python's runs
    if sample.index == 1:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        ctypes.PyDLL(None).sleep(60)
    return 1.0

def orphans(sample):  # its child would hold the pipe open
    if sample.index == 1:
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    return 1.0

def interrupts(sample):
    if sample.index == 1:
        os.kill(os.getpid(), signal.SIGINT)
    return 1.0

def state(sample):
    return os.getpid() % 1000 / 1000
"""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("interrupts", "its process was killed by SIGINT"),
        ("exits", "its process ended with exit code 7"),
        ("segfaults", "its process was killed by SIGSEGV"),
        ("grows", "MemoryError"),
        ("burns", "more than 0.5 s of CPU time (reward.isolate_cpu_s)"),
        ("holds", "no answer within 0.1 s; its process was killed"),
        ("orphans", "its process ended with exit code 0"),
    ],
)
def test_a_crash_in_a_process_of_its_own_costs_its_row(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The rows before and after it are scored: the process is started again."""
    monkeypatch.setattr("selfrefine.rewards.isolated._GRACE_S", 0.3)
    path = tmp_path / "mine.py"
    path.write_text(CRASHES)
    options: dict[str, object] = {"isolate": Limits(memory_gib=4.0, cpu_s=0.5)}
    if name == "holds":
        options["timeout_s"] = 0.1
    first, dead, last = scored(f"{path}:{name}", samples(3), **options)
    assert (dead.value, dead.error) == (None, why)
    assert (first.value, last.value) == (1.0, 1.0) and first.signature == dead.signature
    assert "Traceback" not in capfd.readouterr().err


def test_the_rewards_of_one_file_share_one_process_which_is_not_this_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(CRASHES + "also = state\n")
    (one, _), (also, _) = (scored(f"{path}:{name}", isolate=LIMITS) for name in ("state", "also"))
    assert one.value == also.value != os.getpid() % 1000 / 1000


def test_a_process_that_ends_between_two_calls_leaves_no_child(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import os, subprocess, threading\n"
        "def f(sample):\n"
        f"    with open({str(tmp_path / 'pids')!r}, 'a') as file:\n"
        "        print(os.getpid(), subprocess.Popen(['sleep', '60']).pid, file=file)\n"
        "    threading.Timer(0.05, os._exit, (0,)).start()\n"
        "    return 1.0\n"
    )
    for _ in range(2):
        (one,) = scored(f"{path}:f", samples(1), isolate=LIMITS)
        assert one.value == 1.0
        (worker, child), *_ = (line.split() for line in (tmp_path / "pids").read_text().splitlines())
        _eventually(lambda pid=worker: not _alive(pid))
    assert not _alive(child)


def test_a_lower_limit_of_the_shells_stays(tmp_path: Path) -> None:
    """It was said that memory is not limited, and it was."""
    (tmp_path / "mine.py").write_text(
        "import resource\ndef f(s):\n    return resource.getrlimit(resource.RLIMIT_AS)[0] / 2**34\n"
    )
    (tmp_path / "in").write_bytes(ROWS)
    words = [sys.executable, "-m", "selfrefine", "reward", "in", "-r", "mine.py:f"]
    words += ["--set", "reward.isolate=true", "--set", "reward.isolate_memory_gib=12"]
    limited = ["sh", "-c", f'ulimit -v {8 << 20}; exec "$@"', "sh", *words]
    done = subprocess.run(limited, cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert done.stdout.count(b'"reward":0.5') == 2 and b"not limited" not in done.stderr, done.stderr.decode()


def test_a_reward_that_asks_the_model_cannot_be_isolated(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from selfrefine.rewards.base import RewardKind, Scorer\n"
        "f = RewardKind(name='x', about='y', needs_engine=True,\n"
        "    make=lambda own, options: Scorer(name='x', score=lambda rows: []))\n"
    )
    rows = jsonl(answer("a.r0.s0"))
    words = ["reward", "-r", "mine.py:f", "--model", "scripted", "--set", "reward.isolate=true"]
    refused(selfrefine(*words, stdin=rows, cwd=tmp_path), 3, "mine.py:f needs the model", "reward.isolate")


def test_the_worker_dies_with_its_parent(tmp_path: Path) -> None:
    """A parent that is killed says no goodbye, and the reward would spin for ever."""
    (tmp_path / "mine.py").write_text(
        "import os\nfrom pathlib import Path\n"
        "def f(sample):\n    Path('pid').write_text(str(os.getpid()))\n    while True:\n        pass\n"
    )
    (tmp_path / "in").write_bytes(ROWS)
    words = [sys.executable, "-m", "selfrefine", "reward", "in", "-r", "mine.py:f", "--set"]
    parent = subprocess.Popen([*words, "reward.isolate=true"], cwd=tmp_path, env=environment())
    pid = int(_eventually(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text()))
    parent.kill()
    parent.wait()
    _eventually(lambda: not _alive(pid))


def _alive(pid: int | str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _eventually(what: object, within_s: float = 30.0) -> str:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if found := what():  # type: ignore[operator]
            return str(found)
        time.sleep(0.02)
    raise AssertionError("it did not happen")


# --- stdin and stdout ------------------------------------------------------------------------------
