"""Many requests shared among servers by their free slots. A server that fails is left alone for a while.

A request is asked again, after the others, of another server where there is one. A server that failed gets
no request of the plan until it has answered a small one, so that a dead one does not use up a row's tries.
Where they are used up and a server still answers something else, the request is at fault, and its row says
so. Where none does, the work ends with an error: rows that only say so would be committed, and never asked
for again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
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
    """In a row. Above 0, it is first asked whether it is back."""
    until: float = 0.0
    """Monotonic time up to which it is left alone."""
    why: str = ""
    """What was last said to be wrong with it."""
    checked: bool = False
    """Is it being asked right now whether it is back?"""


@dataclass
class Job:
    """`number`: its place in the plan."""

    number: int
    tries: int = 0
    failed_on: object = None
    """The host that failed on it last."""


@dataclass
class Work:
    """The jobs of one call, and where their results go."""

    jobs: deque[Job]
    left: int
    """Jobs without a result."""
    done: queue.SimpleQueue[tuple[int, bytes | Fault] | str | BaseException] = field(
        default_factory=queue.SimpleQueue
    )
    stopped: bool = False


class Pool(Generic[S]):
    """`check(server)` asks what cannot be at fault itself; it raises Fault where that is not answered."""

    def __init__(
        self,
        servers: Sequence[S],
        settings: EngineConfig,
        check: Callable[[S], object],
        say: Callable[[str], object] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        doubted: Collection[S] = (),
    ) -> None:
        """`doubted`: servers that are to be looked at before they get work."""
        self.hosts = [Host(server, faults=int(server in doubted)) for server in servers]
        self._settings, self._check, self._say, self._clock = settings, check, say, clock
        self._free = threading.Condition()

    def run(self, n: int, ask: Callable[[S, int], bytes]) -> Iterator[tuple[int, bytes | Fault]]:
        """Results of requests 0 to n - 1 as they come, begun in that order. `ask(server, number)` raises
        Fault, or returns the body of the answer.

        Raises: EngineError where no server answers any more.
        """
        work = Work(deque(map(Job, range(n))), n)
        workers = min(n, len(self.hosts) * self._settings.connections)
        for _ in range(workers):
            # Daemons: an interrupted command does not wait for what it asked.
            threading.Thread(
                name="selfrefine-server", target=self._work, args=(work, ask), daemon=True
            ).start()
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
                host, job = taken
                fault, body = None, b""
                try:
                    body = b"" if job is None else ask(host.server, job.number)
                    if job is None:
                        self._check(host.server)
                except Fault as error:
                    fault = error if job is None else self._judged(host, error)
                with self._free:
                    host.busy, host.checked = host.busy - 1, host.checked and job is not None
                    self._settle(work, host, fault, job)
                    self._free.notify_all()
                if job is not None:
                    self._deliver(work, host, job, body if fault is None else fault)
        except BaseException as error:  # noqa: BLE001 - it would be lost here; the caller raises it
            work.done.put(error)

    def _take(self, work: Work) -> tuple[Host[S], Job | None] | None:
        """A free server and the next job, waited for, or a server that is to be looked at and None; None
        where there is no job any more."""
        with self._free:
            while not work.stopped and work.left:
                # Work first: who looks at a dead server may be held up for as long as a request may take.
                if (taken := self._next(work)) is not None:
                    return taken
                now = self._clock()
                for back in self.hosts:
                    if back.faults and not back.checked and back.until <= now:
                        back.busy, back.checked = back.busy + 1, True
                        return back, None
                waits = [host.until - now for host in self.hosts if host.until > now]
                self._free.wait(min(waits, default=None))
            return None

    def _next(self, work: Work) -> tuple[Host[S], Job] | None:
        """The first job that a free server may have. One that failed on it gets it again only where no other
        is there: a server that is always too busy would use up its tries."""
        free = [host for host in self.hosts if not host.faults and self._slots(host) > 0]
        for at, job in enumerate(work.jobs if free else ()):
            others = [host for host in self.hosts if host is not job.failed_on and not host.faults]
            able = [host for host in free if host is not job.failed_on or not others]
            if able:
                host = max(able, key=self._slots)
                host.busy += 1
                del work.jobs[at]
                return host, job
        return None

    def _slots(self, host: Host[S]) -> int:
        """How many more requests it may get."""
        return self._settings.connections - host.busy

    def _settle(self, work: Work, host: Host[S], fault: Fault | None, job: Job | None) -> None:
        """What an answer, or none, says of the server. `job`: None where it was only looked at."""
        failed = fault is not None and (fault.retry or job is None)  # otherwise it answers, if with a refusal
        if job is not None and host.faults:
            # Under way when another failed. That is one fault, which an answer does not end: the server has
            # asked for its pause since. A longer one counts.
            if fault is not None and failed and (fault.busy or fault.after_s is not None):
                self._pause(work, host, fault, job)
            return
        if fault is None or not failed:
            if host.faults:
                work.done.put(f"{host.server.address}: answers again")
            host.faults, host.until, host.why = 0, 0.0, ""
            return
        host.faults, host.until = host.faults + 1, 0.0
        wait = self._pause(work, host, fault, job)
        if all(one.faults > self._settings.retries for one in self.hosts):
            tries = f"{fault.why}; asked {host.faults} times"
            work.done.put(EngineError(f"{host.server.address}: {tries}\n{AGAIN}"))
        elif host.why != fault.why:  # as where it is back with another model
            host.why = fault.why
            work.done.put(f"{host.server.address}: {fault.why}; asking again in {wait:.1f} s")

    def _pause(self, work: Work, host: Host[S], fault: Fault, job: Job | None) -> float:
        """Leaves a server alone; for how long."""
        # A small request may be answered where the work is too much, so the faults in a row do not tell.
        times = max(host.faults, job.tries + 1 if job is not None and fault.busy else 1)
        wait = pause_s(self._settings, host.server.address, times)
        if fault.after_s is not None:
            wait = fault.after_s
        host.until = max(host.until, self._clock() + wait)
        if wait > LONGEST_WAIT_S:
            why = f"{fault.why}; it asks to wait {wait:,.0f} s"
            work.done.put(EngineError(f"{host.server.address}: {why}\n{AGAIN}"))
        return wait

    def _deliver(self, work: Work, host: Host[S], job: Job, found: bytes | Fault) -> None:
        """The result, or the job back to the others while it has tries left."""
        job.tries, job.failed_on = job.tries + 1, host
        if isinstance(found, Fault) and found.retry:
            if job.tries <= self._settings.retries:
                with self._free:
                    work.jobs.append(job)
                    self._free.notify_all()
                return
            tried = found.why if job.tries == 1 else f"{found.why}; asked {job.tries} times"
            if found.busy or not any(self._answers(one.server) for one in self.hosts):
                work.done.put(EngineError(f"{host.server.address}: {tried}\n{AGAIN}"))
                return
            found = Fault(tried)
        with self._free:
            work.left -= 1
            self._free.notify_all()
        work.done.put((job.number, found))

    def _judged(self, host: Host[S], fault: Fault) -> Fault:
        """The fault, as one of the server where it refuses everything: a key that was revoked, a model that
        was unloaded, money that is used up, a page of a proxy in its place. As the rows' own, it would become
        all the rows that are left."""
        if fault.retry or self._answers(host.server):
            return fault
        return Fault(fault.why, retry=True, status=fault.status)

    def _answers(self, server: S) -> bool:
        try:
            self._check(server)
        except Fault:
            return False
        return True


AGAIN = "what is written stays; give the same command again when the server answers"
