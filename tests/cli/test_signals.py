"""Ctrl-C is answered at once, by name, even while Python itself does not get to run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from harness import answer, environment, jsonl

from selfrefine.cli import common
from selfrefine.cli.guard import Stop, watch
from selfrefine.cli.stream import _left
from selfrefine.errors import Interrupted
from selfrefine.report.console import Progress

NOTE = b"generate: finishing the running batch; press Ctrl-C again to stop at once\n"


def watched(*signals: int, capfd: pytest.CaptureFixture[str]) -> tuple[str, list[float], list[int]]:
    """What the watching thread says and does when these signals arrive, their handlers never running."""
    reads, writes = os.pipe()
    os.write(writes, bytes(signals))
    os.close(writes)
    slept, ended = list[float](), list[int]()
    watch(reads, Stop("generate"), slept.append, ended.append)
    os.close(reads)
    return capfd.readouterr().err, slept, ended


def test_a_batch_that_does_not_let_python_run_is_no_reason_to_be_silent(
    capfd: pytest.CaptureFixture[str],
) -> None:
    # Trap: a backward pass of a minute is one step of the interpreter; the handler runs after it.
    assert watched(signal.SIGINT, capfd=capfd) == (NOTE.decode(), [], [])


def test_the_second_one_ends_the_process_after_a_moment_for_the_handler(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert watched(signal.SIGTERM, signal.SIGINT, capfd=capfd)[1:] == ([0.5], [130])
    # Other signals write into the same pipe.
    assert watched(signal.SIGCHLD, signal.SIGCHLD, signal.SIGINT, capfd=capfd)[1:] == ([], [])


def test_handler_and_thread_say_it_once_and_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    # Trap: four verbs of a pipe said the same line, and nobody knew whose it was.
    stop = Stop("reward")
    stop.answer(signal.SIGTERM)
    stop.answer(signal.SIGTERM)
    said = capfd.readouterr().err
    assert said == "reward: finishing the running batch; send SIGTERM again to stop at once\n"
    stop.signum = signal.SIGINT
    with pytest.raises(
        Interrupted, match=r"^reward: stopped by SIGINT after the running batch; run the same"
    ):
        stop.check()


PROGRAM = """
import os, signal, sys
from selfrefine.cli.guard import stoppable
from selfrefine.errors import Interrupted
with stoppable("generate") as stop:
    child = os.fork()
    if not child:
        os._exit(0 if signal.set_wakeup_fd(-1) == -1 else 1)
    print(os.waitpid(child, 0)[1], flush=True)
    sys.stdin.readline()  # interrupted, Python goes on waiting
    try:
        stop.check()
    except Interrupted:
        os._exit(7)
"""


WAITS = """
import sys
from selfrefine import streams
from selfrefine.cli.guard import guarded, stoppable

def command():
    with stoppable("reward") as stop:
        stop.way_on = "the rows written so far are complete"
        print(flush=True, file=sys.__stderr__)
        for _ in streams.lines(streams.reading()):
            pass

sys.exit(guarded(command))
"""


def test_ctrl_c_while_rows_are_waited_for_ends_the_wait() -> None:
    """Trap: a blocked read went on until the other end of the pipe closed, and then said that it is empty."""
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", WAITS], env=environment(), **pipes) as work:
        assert work.stderr and work.stderr.readline() == b"\n"
        work.send_signal(signal.SIGINT)
        assert work.wait(timeout=20) == 130  # stdin is still open
        last = work.stderr.read().splitlines()[-1]
    assert last == (b"reward: stopped by SIGINT while waiting for rows; the rows written so far are complete")


IMPORTS = """
import os, signal, sys
from selfrefine.__main__ import main

class Finder:
    def find_spec(self, name, *_):
        if name == "selfrefine.cli.gate":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
main()
"""


def test_ctrl_c_among_the_imports_is_silent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], env=environment(), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


SLOW = """
import sys, time
def f(sample):
    sys.stderr.write("begun\\n")
    time.sleep(60)
    return 1.0
"""


def interrupted(folder: Path, *words: str) -> list[str]:
    """What the command says after it has begun and got a Ctrl-C. It must end with 130, and soon."""
    command = [sys.executable, "-m", "selfrefine", *words]
    with subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE) as work:
        assert work.stderr
        said = list[bytes]()
        while (line := work.stderr.readline()) != b"begun\n":
            assert line, said
            said.append(line)
        work.send_signal(signal.SIGINT)
        assert work.wait(timeout=20) == 130
        return work.stderr.read().decode().splitlines()


def test_what_a_file_would_not_keep_is_not_finished(tmp_path: Path) -> None:
    """With -o the rows of an interrupted filter are dropped: nobody waits for the rest of a batch."""
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "in").write_bytes(jsonl(answer("a.r0.s0"), answer("a.r0.s1")))
    assert interrupted(tmp_path, "reward", "in", "-r", "slow.py:f", "-o", "out") == [
        "reward: stopping; press Ctrl-C again to stop at once",
        "reward: stopped by SIGINT; nothing was written: the output file appears when all rows are done",
    ]
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == []


SLOW_LOSS = """
import sys, time
from selfrefine.objectives.base import Loss, ObjectiveKind
def loss(logprobs, batch):
    sys.stderr.write("begun\\n")
    time.sleep(60)
    return Loss(-sum(row[0] for row in logprobs), {})
slow = ObjectiveKind(name="x", about="waits", rows="answers", loss=loss, learning_rate=0.1)
"""


def test_a_filter_that_keeps_no_checkpoint_does_not_finish_its_step(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    """A step of a large model takes minutes, and nothing of it would be kept."""
    (tmp_path / "slow.py").write_text(SLOW_LOSS)
    (tmp_path / "in").write_bytes(jsonl(answer("a.r0.s0", reward=1.0)))
    words = ["finetune", "in", "--model", str(tiny_model_dir), "--objective", "slow.py:slow", "-o", "ad"]
    said = interrupted(tmp_path, *words, "--select", "all")
    assert said[-2:] == [
        "finetune: stopping; press Ctrl-C again to stop at once",
        "finetune: stopped by SIGINT; no adapter was written",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "slow.py"]


def test_a_self_test_is_stopped_in_the_middle(tmp_path: Path) -> None:
    """Trap: it looked for the signal nowhere, and went on to its last row."""
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "known").write_bytes(
        jsonl(
            {"prompt": "1 + 1?", "text": "2", "label": "good"},
            {"prompt": "1 + 1?", "text": "3", "label": "bad"},
        )
    )
    said = interrupted(tmp_path, "reward", "--selftest", "known", "-r", "slow.py:f")
    assert said == [
        "reward: stopping; press Ctrl-C again to stop at once",
        "reward: stopped by SIGINT; the self-test has no result",
    ]


def test_how_much_of_the_batch_is_left_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    stop = Stop("generate")
    bar = Progress("generate", 1536, 0, lambda: 0.0)
    bar.advance(rows=512 + 100)  # a unit of 512 before, 100 of this one
    stop.left = partial(_left, bar, 1024, 512)
    stop.answer(signal.SIGINT)
    assert "finishing the running batch (924 of 1,024 rows left); press" in capfd.readouterr().err


def test_in_a_run_it_is_said_how_far_the_stage_is(capfd: pytest.CaptureFixture[str]) -> None:
    """A batch may be most of a stage: whoever waits for it wants to know how much there is."""
    stop = Stop("cycle")
    with common.ConsoleReporter(stop).stage("round 1 generate", 1024) as bar:
        bar.advance(rows=300)
        stop.answer(signal.SIGINT)
        bar.finish("")
    said = "cycle: finishing the running batch; 300 of 1,024 rows of this stage are done; press Ctrl-C again"
    assert said in capfd.readouterr().err and stop.left() == ""


def test_a_real_process_answers_and_its_forked_worker_is_out_of_it() -> None:
    """The worker would write its own Ctrl-C into its parent's pipe, where it counts as the second."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment(), **pipes) as work:
        assert work.stdin and work.stdout and work.stderr
        assert work.stdout.readline() == b"0\n"
        work.send_signal(signal.SIGINT)
        assert work.stderr.read(len(NOTE)) == NOTE
        work.stdin.write(b"go on\n")
        work.stdin.close()
        assert work.wait() == 7
