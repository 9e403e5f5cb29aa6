"""Work shared among servers, without a network: who is asked, in which order, how long one is left alone."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from selfrefine.engines.openai_http import Fault, retry_after_s, what_text, why_refused
from selfrefine.engines.openai_pool import LONGEST_PAUSE_S, Pool, pause_s
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
