"""Commands run in forked children: one process imports everything once, runs nothing, and forks.

A child costs a few milliseconds instead of the seconds that importing torch takes, and since its parent never
ran an op there is no thread pool to inherit half of. The client (`Forks`) talks to the server in JSON lines.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

UNIT_TOKENS = 20
"""What children cut their commit units by: small, so that a small run has several in a stage."""


@dataclasses.dataclass(frozen=True)
class Job:
    """`selfrefine *argv` in the folder `cwd`; what it prints goes to `cwd`.out."""

    argv: Sequence[str]
    cwd: str
    at: int = 0
    """The failpoint at which `signal` comes: SIGKILL, SIGINT and SIGTERM (`at`, `again`), SIGSTOP."""
    signal: str = "SIGKILL"
    again: int = 0
    meanwhile: Job | None = None
    """Runs while a stopped child stands still; its status is the chain's next one."""
    until: str = ""
    """SIGKILL at the door of this stage ("reward 2")."""
    log: str = ""
    """Every failpoint passed is written to this file, as "N name", after the stages' names."""
    plant: str = ""
    """A planted bug: the name of a function in test_failpoints."""
    file_limit_bytes: int = 0
    """RLIMIT_FSIZE: a disk that is full when a file grows beyond it."""


class Forks:
    """The client. `run` returns a list of statuses for every chain: exit codes, or minus the signal."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *chains: Sequence[Job]) -> list[list[int]]:
        """The jobs of a chain run one after the other, two chains at a time."""
        assert self._server.stdin and self._server.stdout
        request = [[dataclasses.asdict(job) for job in chain] for chain in chains]
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the fork server is gone"
        statuses: list[list[int]] = json.loads(answer)
        return statuses

    def close(self) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait()


# --- the server ------------------------------------------------------------------------------------


def serve(workers: int = 2) -> None:
    for line in sys.stdin:
        chains: list[list[dict[str, Any]]] = json.loads(line)
        statuses: list[list[int]] = [[] for _ in chains]
        waiting = iter(enumerate(chains))
        running: dict[int, int] = {}
        while True:
            while len(running) < workers and (following := next(waiting, None)):
                running[_fork(following[1].pop(0))] = following[0]
            if not running:
                break
            pid, status = os.waitpid(-1, os.WUNTRACED)
            number = running[pid]
            if os.WIFSTOPPED(status):
                other = _fork(current[pid]["meanwhile"])
                statuses[number].append(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
                os.kill(pid, signal.SIGCONT)
                continue
            del running[pid]
            statuses[number].append(os.waitstatus_to_exitcode(status))
            if chains[number]:
                running[_fork(chains[number].pop(0))] = number
        sys.stdout.write(json.dumps(statuses) + "\n")
        sys.stdout.flush()


current: dict[int, dict[str, Any]] = {}
command: Callable[[], object]


def _fork(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = _child(job)
        finally:
            os._exit(code)
    current[pid] = job
    return pid


def _child(job: dict[str, Any]) -> int:
    import torch

    from selfrefine.cli.guard import guarded

    os.chdir(job["cwd"])
    out = os.open(f"{job['cwd']}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    torch.set_num_threads(1)
    gc.disable()  # a short life
    _arm(job)
    sys.argv = ["selfrefine", *job["argv"]]
    code = guarded(command)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _arm(job: dict[str, Any]) -> None:
    """The world this child lives in: where it dies, how large its disk is, which bug it has."""
    import resource

    from selfrefine.runfolder import failpoints

    # What a killed process wrote stays in the page cache; the order of fsyncs is tested in test_jsonl.
    os.fsync = lambda fd: None
    os.environ["SELFREFINE_FAILPOINT"] = str(job["at"])
    os.environ["SELFREFINE_FAILPOINT_LOG"] = job["log"]
    failpoints.reset()
    number = getattr(signal, job["signal"])
    if number != signal.SIGKILL:
        failpoints.signal = SimpleNamespace(SIGKILL=number)  # type: ignore[assignment]
    if job["again"]:
        _signal_again(failpoints, job["again"])
    if job["log"] or job["until"]:
        _name_stages(job["log"], job["until"])
    if job["plant"]:
        import pytest
        import test_failpoints

        getattr(test_failpoints, job["plant"])(pytest.MonkeyPatch())
    if limit := job["file_limit_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def _signal_again(failpoints: Any, again: int) -> None:
    """The second signal: the failpoints go on counting, and the process is to die at this one."""
    send = os.kill

    def kill(pid: int, number: int) -> None:
        send(pid, number)
        failpoints._kill_at = again

    failpoints.os = SimpleNamespace(kill=kill, getpid=os.getpid, environ=os.environ)


def _name_stages(log: str, until: str) -> None:
    """Write the names of the stages that are entered into the log; die at the door of `until`."""
    from selfrefine.stages import cycle

    def named(name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        def entered(session: Any, *k: int) -> Any:
            title = " ".join([name, *map(str, k)])
            if title == until:
                os.kill(os.getpid(), signal.SIGKILL)
            if log:
                with Path(log).open("a") as stream:
                    stream.write(f"{title}\n")
            return stage(session, *k)

        return entered

    cycle.ROUND = tuple(named(stage.__name__.removesuffix("_round"), stage) for stage in cycle.ROUND)
    for name in ("baseline", "final"):
        setattr(cycle, name, named(name, getattr(cycle, name)))


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    import warm

    from selfrefine.engines import local

    command = warm.up()
    local.UNIT_TOKENS["cpu"] = UNIT_TOKENS
    serve()
