"""Many requests shared among servers by their free slots. A server that fails is left alone for a while.

A request is asked again, after the others, of whichever server is free then. Where all its tries are used up
and a server still answers something else, the request is at fault, and its row says so. Where none does, the
work ends with an error: rows that only say so would be committed, and never asked for again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from selfrefine import seeds
from selfrefine.engines.openai_http import Fault
from selfrefine.errors import EngineError
from selfrefine.serving import EngineConfig

LONGEST_PAUSE_S = 30.0
LONGEST_WAIT_S = 900.0
"""What a server may ask to wait. A quota that comes back tomorrow is no pause."""


class Addressed(Protocol):
    """A server."""

    @property
    def address(self) -> str:
        """For messages."""


S = TypeVar("S", bound=Addressed)


def pause_s(settings: EngineConfig, address: str, faults: int) -> float:
    """How long a server is left alone after `faults` (from 1) in a row, in seconds."""
    share = seeds.derive(faults, "backoff", address) / 2**53
    return min(LONGEST_PAUSE_S, settings.backoff_s * 2.0 ** min(faults - 1, 30)) * (0.5 + share)


@dataclass
class Host(Generic[S]):
    """A server as the pool sees it."""

    server: S
    busy: int = 0
    faults: int = 0
    """In a row."""
    until: float = 0.0
    """Monotonic time up to which it is left alone."""


@dataclass
class Job:
    """`number`: its place in the plan."""

    number: int
    tries: int = 0


@dataclass
class Work:
    """The jobs of one call, and where their results go."""

    jobs: deque[Job]
    done: queue.SimpleQueue[tuple[int, bytes | Fault] | str | BaseException] = field(
        default_factory=queue.SimpleQueue
    )
    stopped: bool = False


class Pool(Generic[S]):
    """`alive(server)`: whether it answers a request that cannot be at fault."""

    def __init__(
        self,
        servers: Sequence[S],
        settings: EngineConfig,
        alive: Callable[[S], bool],
        say: Callable[[str], object] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hosts = [Host(server) for server in servers]
        self._settings, self._alive, self._say, self._clock = settings, alive, say, clock
        self._free = threading.Condition()

    def run(self, n: int, ask: Callable[[S, int], bytes]) -> Iterator[tuple[int, bytes | Fault]]:
        """Results of requests 0 to n - 1 as they come, begun in that order. `ask(server, number)` raises
        Fault, or returns the body of the answer.

        Raises: EngineError where no server answers any more.
        """
        work = Work(deque(map(Job, range(n))))
        workers = min(n, len(self.hosts) * self._settings.connections)
        for _ in range(workers):
            # Daemons: an interrupted command does not wait for what it asked.
            threading.Thread(target=self._work, args=(work, ask), daemon=True).start()
        left = n
        try:
            while left:
                found = work.done.get()
                if isinstance(found, BaseException):
                    raise found
                if isinstance(found, str):
                    self._say(found)
                    continue
                left -= 1
                yield found
        finally:
            with self._free:
                work.stopped = True
                self._free.notify_all()

    def _work(self, work: Work, ask: Callable[[S, int], bytes]) -> None:
        """One thread: jobs until there are none."""
        try:
            while (taken := self._take(work)) is not None:
                self._do(work, ask, *taken)
        except BaseException as error:  # noqa: BLE001 - it would be lost here; the caller raises it
            work.done.put(error)

    def _take(self, work: Work) -> tuple[Host[S], Job] | None:
        """The next job and a free server for it, waited for; None where there is no job any more."""
        with self._free:
            while True:
                # A job that another thread is asking may come back.
                if work.stopped or (not work.jobs and not self._pending(work)):
                    return None
                now = self._clock()
                free = [host for host in self.hosts if self._slots(host, now)]
                if work.jobs and free:
                    host = max(free, key=lambda one: self._slots(one, now))
                    host.busy += 1
                    return host, work.jobs.popleft()
                waits = [host.until - now for host in self.hosts if host.until > now]
                self._free.wait(min(waits) if work.jobs and waits else None)

    def _pending(self, work: Work) -> bool:
        return any(host.busy for host in self.hosts)

    def _slots(self, host: Host[S], now: float) -> int:
        """How many more requests it may get. One, where it has failed: to see whether it is back."""
        if now < host.until:
            return 0
        return max(0, (1 if host.faults else self._settings.connections) - host.busy)

    def _do(self, work: Work, ask: Callable[[S, int], bytes], host: Host[S], job: Job) -> None:
        began = self._clock()
        fault, body = None, b""
        try:
            body = ask(host.server, job.number)
        except Fault as error:
            fault = error
        finally:
            with self._free:
                host.busy -= 1
                self._free.notify_all()
        if fault is None or not fault.retry:  # it answers, if only with a refusal
            with self._free:
                if host.faults:
                    work.done.put(f"{host.server.address}: answers again")
                host.faults, host.until = 0, 0.0
                self._free.notify_all()
            work.done.put((job.number, body if fault is None else fault))
            return
        job.tries += 1
        with self._free:
            self._set_aside(work, host, fault, began)
            if job.tries <= self._settings.retries:
                work.jobs.append(job)
                self._free.notify_all()
                return
        work.done.put(self._given_up(host, job, fault))

    def _set_aside(self, work: Work, host: Host[S], fault: Fault, began: float) -> None:
        """Requests that were under way together fail together, which is one fault."""
        now = self._clock()
        if host.faults and began < host.until:
            return
        host.faults += 1
        wait = pause_s(self._settings, host.server.address, host.faults)
        if fault.after_s is not None:
            wait = fault.after_s
        host.until = now + wait
        if wait > LONGEST_WAIT_S:
            work.done.put(
                EngineError(f"{host.server.address}: {fault.why}; it asks to wait {wait:,.0f} s\n{AGAIN}")
            )
        elif host.faults == 1:
            work.done.put(f"{host.server.address}: {fault.why}; asking again in {wait:.1f} s")

    def _given_up(self, host: Host[S], job: Job, fault: Fault) -> tuple[int, Fault] | EngineError:
        """The row's own fault where a server answers something else."""
        tried = fault.why if job.tries == 1 else f"{fault.why}; asked {job.tries} times"
        if not fault.busy and any(self._alive(one.server) for one in self.hosts):
            return job.number, Fault(tried)
        return EngineError(f"{host.server.address}: {tried}\n{AGAIN}")


AGAIN = "what is written stays; give the same command again when the server answers"
