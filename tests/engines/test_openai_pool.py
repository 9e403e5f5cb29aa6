"""Work shared among servers, without a network: who is asked, in which order, how long one is left alone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from selfrefine.engines.openai_http import Fault, retry_after_s, what_text, why_refused
from selfrefine.engines.openai_pool import LONGEST_PAUSE_S, Pool, pause_s
from selfrefine.errors import EngineError
from selfrefine.serving import EngineConfig


@dataclass
class Named:
    address: str
    asked: list[int] = field(default_factory=list)


def nothing(server: Named) -> None:
    """It is always back."""


def test_pauses_double_with_each_fault_in_a_row_up_to_a_limit_and_are_spread_by_the_seed() -> None:
    own = EngineConfig(backoff_s=0.5)
    for faults, base in ((1, 0.5), (2, 1.0), (4, 4.0), (7, LONGEST_PAUSE_S), (5000, LONGEST_PAUSE_S)):
        found = pause_s(own, "http://a", faults)
        assert 0.5 * base <= found <= 1.5 * base
        assert found == pause_s(own, "http://a", faults)
        # Two that failed together do not come back together.
        assert found != pause_s(own, "http://b", faults)
    assert pause_s(EngineConfig(backoff_s=0.0), "http://a", 3) == 0.0


def test_the_work_begins_in_the_order_of_the_plan_and_each_is_done_once() -> None:
    server = Named("a")

    def ask(server: Named, number: int) -> bytes:
        server.asked.append(number)
        return str(number).encode()

    pool = Pool([server], EngineConfig(connections=1), nothing)
    assert list(pool.run(5, ask)) == [(k, str(k).encode()) for k in range(5)]
    assert server.asked == [0, 1, 2, 3, 4]
    assert list(pool.run(0, ask)) == []


def test_the_server_with_more_free_slots_is_asked() -> None:
    """One of the two answers nothing until the other has answered nearly all: it holds its two at most."""
    slow, fast = Named("slow"), Named("fast")
    rest = threading.Semaphore(0)

    def ask(server: Named, number: int) -> bytes:
        server.asked.append(number)
        if server is slow:
            assert rest.acquire(timeout=60)
        elif len(fast.asked) == 8:
            rest.release(10)
        return b""

    done = Counter(
        number for number, _ in Pool([slow, fast], EngineConfig(connections=2), nothing).run(10, ask)
    )
    assert done == Counter(range(10))
    assert 1 <= len(slow.asked) <= 2 and len(fast.asked) >= 8


def test_a_request_that_failed_waits_behind_the_others() -> None:
    """In front, one that breaks its server would hold up all that could be answered."""
    order: list[int] = []

    def ask(server: Named, number: int) -> bytes:
        order.append(number)
        if number == 0 and order.count(0) < 3:
            raise Fault("broken", retry=True)
        return b""

    own = EngineConfig(connections=1, retries=3, backoff_s=0.0)
    assert len(list(Pool([Named("a")], own, nothing).run(3, ask))) == 3
    assert order == [0, 1, 2, 0, 0]


def test_a_server_gets_no_work_before_it_has_answered_the_check() -> None:
    """A dead server that fails fast would otherwise use up every row's tries."""
    dead, alive = Named("dead"), Named("alive")

    def ask(server: Named, number: int) -> bytes:
        server.asked.append(number)
        if server is dead:
            raise Fault("refused", retry=True)
        return b""

    def check(server: Named) -> None:
        if server is dead:
            raise Fault("refused", retry=True)

    own = EngineConfig(connections=1, retries=0 + 1, backoff_s=0.0)
    found = dict(Pool([dead, alive], own, check).run(200, ask))
    assert all(body == b"" for body in found.values()) and len(found) == 200
    assert len(dead.asked) == 1 and len(alive.asked) == 200


def test_a_pause_that_a_server_asks_for_is_kept_though_others_of_its_answers_arrive() -> None:
    """Trap: with several requests under way, one is refused with Retry-After and the next is answered."""
    refused_at, begun = [], {}
    refused, both = threading.Event(), threading.Barrier(2, timeout=60)

    def ask(server: Named, number: int) -> bytes:
        begun.setdefault(number, time.monotonic())
        if number < 2 and not refused.is_set():
            both.wait()
        if number == 1:
            assert refused.wait(60)
            time.sleep(0.05)
        elif not refused.is_set():
            refused_at.append(time.monotonic())
            refused.set()
            raise Fault("HTTP 429", retry=True, after_s=0.4, status=429)
        return b""

    found = dict(Pool([Named("a")], EngineConfig(connections=2, backoff_s=0.0), nothing).run(6, ask))
    assert len(found) == 6
    assert all(begun[number] >= refused_at[0] + 0.4 for number in range(2, 6))


def test_pauses_of_a_busy_server_double_although_it_answers_small_requests() -> None:
    """A limit of tokens per minute lets those pass, so the faults in a row never were more than one."""

    def ask(server: Named, number: int) -> bytes:
        raise Fault("HTTP 429", retry=True, status=429)

    own = EngineConfig(connections=1, retries=3, backoff_s=0.02)
    began = time.monotonic()
    with pytest.raises(EngineError, match="asked 4 times"):
        list(Pool([Named("a")], own, nothing).run(1, ask))
    assert time.monotonic() - began >= sum(pause_s(own, "a", times) for times in (1, 2, 3))


def test_a_request_that_failed_is_asked_of_another_server() -> None:
    """One that is always too busy has always a free slot: it used up a request's tries beside one that
    could answer everything."""
    busy, able = Named("busy"), Named("able")

    def ask(server: Named, number: int) -> bytes:
        server.asked.append(number)
        if server is busy:
            raise Fault("HTTP 429", retry=True, status=429)
        time.sleep(0.001)
        return b""

    own = EngineConfig(connections=2, retries=2, backoff_s=0.0)
    assert len(dict(Pool([busy, able], own, nothing).run(100, ask))) == 100
    assert Counter(able.asked) == Counter(range(100))
    assert max(Counter(busy.asked).values()) == 1


def test_work_is_not_held_up_by_a_look_at_a_server_that_does_not_answer() -> None:
    """One request has one thread; the look may take as long as a request may."""
    dead, alive = Named("dead"), Named("alive")
    looked: list[str] = []
    pool = Pool([dead, alive], EngineConfig(), lambda server: looked.append(server.address), doubted=[dead])
    assert list(pool.run(1, lambda server, number: server.address.encode())) == [(0, b"alive")]
    assert looked == []


def test_what_breaks_in_a_thread_is_raised_where_the_work_was_asked_for() -> None:
    def ask(server: Named, number: int) -> bytes:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        list(Pool([Named("a")], EngineConfig(connections=2), nothing).run(3, ask))


def test_threads_end_when_the_results_are_no_longer_wanted() -> None:
    before = threading.active_count()
    pool = Pool([Named("a")], EngineConfig(connections=2), nothing)
    results = pool.run(1000, lambda server, number: b"")
    next(results)
    results.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.daemon and thread.name.startswith("selfrefine-server"):
            thread.join(30)
            assert not thread.is_alive()
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Sat, 28 Nov 2026 12:00:30 GMT", 30.0),
        ("Sat, 28 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, datetime(2026, 11, 28, 12, 0, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "too\\nlong", "type": "x"}}', "too long"),
        (b'{"error": "no"}', "no"),
        (b'{"message": "no"}', "no"),
        (b'{"detail": [{"loc": ["n"]}]}', '{"detail": [{"loc": ["n"]}]}'),
        (b"", "an empty body"),
        (b"\xff\xfe", "no JSON: \ufffd\ufffd"),
        (b"<html><head><title> 502\nBad Gateway </title>", "an HTML page (502 Bad Gateway) instead of JSON"),
        (b"[" * 5000, "no JSON: " + "[" * 100),
    ],
)
def test_what_a_server_says_with_an_error(body: bytes, said: str) -> None:
    assert why_refused(body) == said
    assert len(why_refused(b'{"error": "' + b"x" * 5000 + b'"}')) == 300


def test_what_stands_there_instead_of_json() -> None:
    assert what_text("<!DOCTYPE html><p>") == "an HTML page instead of JSON"
