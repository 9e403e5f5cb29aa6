"""Ctrl-C is answered at once, by name, even while Python itself does not get to run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from harness import environment

from selfrefine.cli.guard import Stop, watch
from selfrefine.errors import Interrupted

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
