"""Outside rewards in a process of their own (`reward.isolate`): os._exit and a segfault end that one only.

    parent -> worker   the job, a line; then per call a line with the reward's name and n, and n rows
    worker -> parent   an empty line when it is ready; then per call a line: n rewards, or what is wrong

One worker serves all such rewards of a command, so that those of one file share its state. A call is a row,
a prompt's rows for a group reward and for whatever wants several. It is killed, and started again for the
next call, when it takes longer than its limits; and it ends with its parent.
"""

from __future__ import annotations

import os
import queue
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from selfrefine import records, streams
from selfrefine.boundary import told_threads
from selfrefine.errors import ConfigError, SelfrefineError
from selfrefine.records import Reward, Sample
from selfrefine.rewards import REWARDS, outside
from selfrefine.rewards.base import (
    Each,
    EachGroup,
    Limits,
    RewardKind,
    RewardOptions,
    Scorer,
    own_settings,
    unscored,
)

_GRACE_S = 5.0
"""What the worker may take beyond `timeout_s`: it interrupts Python code by itself."""


class Job(Struct, frozen=True, kw_only=True):
    """What a worker is for."""

    limits: Limits
    folder: str
    options: dict[str, Any]
    """RewardOptions, as far as a worker has a use for them."""


_Call = tuple[str, str, int]
"""The reward's name, the sha256 of its file, and how many rows follow."""


class _Died(Exception):
    """Why there is no answer."""


def isolated(kind: RewardKind, made: Scorer, options: RewardOptions) -> Scorer:
    """`made`, but scored in the worker. Raises: ConfigError for one that asks the model."""
    if kind.needs_engine:
        raise ConfigError(f"reward {kind.name} needs the model, so it cannot run with reward.isolate = true")
    assert options.isolate is not None
    names = ("seed", "settings", "reveal_references", "timeout_s", "texts")
    shared = {name: getattr(options, name) for name in names}
    job = Job(limits=options.isolate, folder=str(Path.cwd()), options=shared)

    def call(samples: Sequence[Sample]) -> list[Reward]:
        try:
            return _worker(job).ask(kind, samples)
        except _Died as died:
            return [unscored(kind.name, str(died), kind.origin.signature)] * len(samples)

    unit = made.score if isinstance(made.score, Each) else EachGroup(call)
    return msgspec.structs.replace(made, score=outside.alike(unit, call))


_WORKERS: dict[bytes, Worker] = {}


def _worker(job: Job) -> Worker:
    key = msgspec.json.encode(job)
    return _WORKERS.setdefault(key, Worker(key, job))


class Worker:
    """The parent's side: starts the process when there is something to score, and again after its death."""

    def __init__(self, line: bytes, job: Job) -> None:
        self._line, self._job = line, job
        self._process: subprocess.Popen[bytes] | None = None
        self._at_exit: Any = None

    def ask(self, kind: RewardKind, samples: Sequence[Sample]) -> list[Reward]:
        """Raises: _Died; ConfigError where the reward cannot be made there."""
        process = self._running()
        call: _Call = (kind.name, kind.origin.sha256, len(samples))
        rows = [msgspec.json.encode(call), *map(records.encode, samples)]
        timeout_s = self._job.options["timeout_s"]
        try:
            answer = self._exchange(process, b"\n".join(rows) + b"\n", timeout_s and timeout_s + _GRACE_S)
        except TimeoutError:
            raise _Died(f"no answer within {timeout_s:g} s; its process was killed") from None
        return msgspec.json.decode(answer, type=list[Reward])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            if self._process.poll() is None:
                return self._process
            self._end()  # it ended after its last answer: its children and its number are not ours to keep
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from selfrefine.rewards.isolated import serve; serve()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is not for it, and its children can be killed with it
        )
        self._at_exit = weakref.finalize(self, _kill, self._process.pid)
        self._exchange(self._process, self._line + b"\n", None)
        return self._process

    def _exchange(self, process: subprocess.Popen[bytes], data: bytes, timeout_s: float | None) -> bytes:
        """Raises: _Died, TimeoutError; ConfigError with what the worker says is wrong."""
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(data)
            process.stdin.flush()
            until = time.monotonic() + timeout_s if timeout_s else float("inf")
            answer = process.stdout.readline() if _answered(process, until) else b""
        except BrokenPipeError:
            answer = b""
        except BaseException:  # also the user's Ctrl-C: what it is still at, nobody waits for
            self._end()
            raise
        if answer.startswith(b"!"):
            raise ConfigError(answer[1:].decode().strip())
        if not answer.endswith(b"\n"):
            raise _Died(self._why_dead(self._end()))
        return answer

    def _end(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)  # it may be on its way out, with a code that says why
        self._at_exit.detach()
        _kill(process.pid)
        return process.wait()

    def _why_dead(self, code: int) -> str:
        if code >= 0:
            return f"its process ended with exit code {code}"
        if -code == signal.SIGXCPU:
            return f"more than {self._job.limits.cpu_s:g} s of CPU time (reward.isolate_cpu_s)"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"its process was killed by {name}"


def _answered(process: subprocess.Popen[bytes], until: float) -> bool:
    """Wait for an answer, or for the process to end: where a child of its own holds the pipe, no EOF says so.

    Raises: TimeoutError.
    """
    assert process.stdout is not None
    while not select.select([process.stdout], [], [], max(0.0, min(0.2, until - time.monotonic())))[0]:
        if process.poll() is not None:
            return bool(select.select([process.stdout], [], [], 0.0)[0])
        if time.monotonic() >= until:
            raise TimeoutError
    return True


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


# --- the worker ------------------------------------------------------------------------------------


def serve() -> None:
    """Answer calls until stdin ends."""
    # A session of its own gets no Ctrl-C: a SIGINT is from the reward, and ends it like any other signal.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with streams.held(), told_threads():
        stdin, stdout = streams.reading(), streams.writing()
        assert stdin is not None and stdout is not None
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(stdin.buffer, lines), daemon=True).start()

        def tell(line: bytes) -> None:
            stdout.buffer.write(line + b"\n")
            stdout.buffer.flush()

        try:
            job = msgspec.json.decode(lines.get(), type=Job)
            options = RewardOptions(**job.options)
            _limit_memory(job.limits)
            scorers: dict[tuple[str, str], Scorer] = {}
            tell(b"")
            while True:
                name, sha256, n = msgspec.json.decode(lines.get(), type=_Call)
                rows = [records.decode_sample(lines.get(), "row") for _ in range(n)]
                if (name, sha256) not in scorers:
                    own, _ = own_settings(kind := REWARDS.get(name), options.settings.get(name, {}))
                    scorers[name, sha256] = outside.make(kind, own, options)
                _limit_cpu(job.limits)
                tell(msgspec.json.encode(scorers[name, sha256].score(rows)))
        except SelfrefineError as error:
            tell(b"!" + str(error).replace("\n", " ").encode())


def _read(stdin: BinaryIO, lines: queue.SimpleQueue[bytes]) -> None:
    """Beside the scoring: the end of the parent ends a call, too, unless C code holds the interpreter."""
    for line in stdin:
        lines.put(line.rstrip(b"\n"))
    _kill(os.getpgid(0))


def _limit_memory(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    size, _ = _below_hard(resource.RLIMIT_AS, int(limits.memory_gib * (1 << 30)))
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    except (ValueError, OSError) as error:
        sys.stderr.write(
            f"reward.isolate_memory_gib: not supported by this system, memory is not limited ({error})\n"
        )


def _limit_cpu(limits: Limits) -> None:
    """Of this call: what was used before does not count."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime + limits.cpu_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, _below_hard(resource.RLIMIT_CPU, until))


def _below_hard(limit: int, value: int) -> tuple[int, int]:
    hard = resource.getrlimit(limit)[1]
    return value if hard < 0 else min(value, hard), hard
