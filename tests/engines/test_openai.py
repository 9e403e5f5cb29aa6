"""The engine on servers: what each fault of a server comes to. A real client, real sockets, a server that
fails on purpose (faulty.py)."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from faulty import Do, faulty, last
from served import always, answers, engine, once

from selfrefine.config import Sampling
from selfrefine.engines.base import Request
from selfrefine.errors import EngineError
from selfrefine.records import Message, Sample, Task
from selfrefine.steps.resume import resume


def test_each_row_is_a_request_with_its_chat_its_settings_and_its_own_seed() -> None:
    with faulty(answer=lambda payload: f"{last(payload)}{payload['seed']}") as server:
        made = engine(server)
        found = answers(made, "a", "b", n=2, sampling=Sampling(max_new_tokens=8, top_p=0.9, stop=("\n",)))
    assert {key: one.text for key, one in found.items()} == {
        (0, 0): "a0",
        (0, 1): "a1",
        (1, 0): "b10",
        (1, 1): "b11",
    }
    sent = next(one for one in server.asked if one["seed"] == 11)
    assert sent["messages"] == [{"role": "user", "content": "b"}]
    assert (sent["max_tokens"], sent["top_p"], sent["temperature"], sent["stop"]) == (8, 0.9, 1.0, ["\n"])
    # llama.cpp samples with top_k 40 and min_p 0.05 if these are not sent.
    assert (sent["top_k"], sent["min_p"], sent["repeat_penalty"]) == (0, 0.0, 1.0)


def test_seeds_are_cut_to_31_bits() -> None:
    """2^53 - 1 became 2^32 - 1 in llama.cpp, which draws a seed then: two requests gave two answers."""
    with faulty() as server:
        big = Request(prompt_token_ids=(), seeds=(2**53 - 1,), messages=(Message(role="user", content="a"),))
        list(engine(server).generate([big], Sampling()))
    assert server.asked[0]["seed"] == 2**31 - 1


def test_a_revision_of_a_servers_draft_is_written_anew() -> None:
    """Its ids cannot be read here, so nothing of it can be kept up to a fault."""
    draft = Sample(id="a.r0.s0", task=Task(id="a", prompt=()), text="1, 2, 4", token_ids=(5, 6, 7))
    with faulty() as server:
        assert resume(draft, draft, 4, engine(server)) is None


def test_ids_and_logprobs_are_kept_where_they_are_the_whole_answer() -> None:
    with faulty(can=("logprobs", "token_ids", "seed"), answer=lambda payload: last(payload)) as server:
        made = engine(server)
        whole, cut = (answers(made, "ab.c", sampling=Sampling(stop=stop))[0, 0] for stop in ((), (".",)))
    assert made.capabilities == {"sample", "logprobs"}
    assert whole.token_ids == (97, 98, 46, 99, 0) and whole.logprobs == (-0.5, -0.5, -0.5, -0.5, -0.1)
    # The server does not heed stop texts: cut here, and without ids, which would not end the turn.
    assert (cut.text, cut.finish_reason, cut.token_ids, cut.logprobs) == ("ab", "stop", (), None)


@pytest.mark.parametrize(
    "fault",
    [
        Do(500, "oops"),
        Do(503, "loading", {"Retry-After": "0"}),
        Do(429, "slow down", {"Retry-After": "0"}),
        Do(429, "slow down", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Do(408, ""),
        Do(hang_up=True),
        Do(body='{"choices": [{"mess', half=True),
    ],
    ids=["500", "503", "429", "429-date", "408", "hang-up", "half-a-body"],
)
def test_what_passes_is_asked_again(fault: Do) -> None:
    said: list[str] = []
    with faulty(once(fault)) as server:
        found = answers(engine(server, say=said.append), "a", "b", "c")
    assert [found[i, 0].text for i in range(3)] == ["3", "3", "3"]
    assert len(server.asked) == 4
    assert "asking again" in said[0] and said[-1] == f"{server.url}: answers again"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (
            Do(400, json.dumps({"error": {"message": "9,031 tokens exceed the context"}})),
            "9,031 tokens exceed",
        ),
        (Do(404, json.dumps({"error": {"message": "The model `m` does not exist"}})), "does not exist"),
        (Do(422, json.dumps({"detail": "bad"})), "HTTP 422: bad"),
        (Do(307, "", {"Location": "http://elsewhere/v1"}), "sends you to http://elsewhere/v1"),
        (Do(200, "<!doctype html><title>Log in</title>"), "an HTML page (Log in) instead of JSON"),
        (Do(200, '{"choices": [}'), "no JSON"),
        (Do(200, ""), "an empty body"),
        (Do(200, "[" * 100_000), "no chat completion"),
        (Do(200, b'{"choices": [{"message": {"content": "\xff"}}]}'), "no JSON"),
        (Do(200, "[1]"), "no chat completion"),
        (Do(200, '{"choices": []}'), "no choices"),
        (Do(200, '{"object": "list"}'), "no chat completion"),
        (Do(200, '{"choices": [{"finish_reason": "stop", "message": {"content": ""}}]}'), "is empty"),
        (Do(200, '{"choices": [{"finish_reason": "stop", "message": {"content": null}}]}'), "is empty"),
        (
            Do(200, '{"choices": [{"finish_reason": "length", "message": {"reasoning_content": "hm"}}]}'),
            "all its tokens went into reasoning",
        ),
        (
            Do(200, '{"choices": [{"finish_reason": "stop", "message": {"refusal": "I cannot"}}]}'),
            "refused: I cannot",
        ),
        (
            Do(200, '{"choices": [{"finish_reason": "content_filter", "message": {"content": "x"}}]}'),
            "content_filter",
        ),
        (Do(200, '{"choices": [{"finish_reason": "tool_calls", "message": {}}]}'), "tool_calls"),
    ],
)
def test_an_answer_that_is_none_is_a_row_with_its_reason_and_not_asked_again(fault: Do, why: str) -> None:
    with faulty(always(fault)) as server:
        found = answers(engine(server), "a", "b", "c")
    assert [found[i, 0].finish_reason for i in range(3)] == ["stop", "error", "stop"]
    assert why in (found[1, 0].error or "")
    assert len(server.asked) == 3


@pytest.mark.parametrize("count", [-5, 0, 10**30])
def test_a_count_of_tokens_that_is_none_is_null(count: int) -> None:
    """A row with -5 could not be read again, one with 10^30 not be written, and 0 is no count of a text."""
    said = {"finish_reason": "stop", "message": {"content": "3"}}
    body = {"choices": [said], "usage": {"completion_tokens": count}}
    tokens = [{"token": "3", "logprob": -0.5, "id": count or -1}, {"token": "", "logprob": -0.5, "id": 2}]
    with faulty(always(Do(200, json.dumps(body)))) as server:
        assert answers(engine(server), "a", "b")[1, 0].counted_tokens is None
    body["choices"] = [said | {"logprobs": {"content": tokens}}]
    with faulty(always(Do(200, json.dumps(body)))) as server:
        assert answers(engine(server), "a", "b")[1, 0].token_ids == ()


SECRET = "sk-" + "0123456789" * 5


@pytest.mark.parametrize(
    "fault",
    [
        Do(200, f"bad key {SECRET}"),
        Do(200, f"<html><title>{SECRET}</title>"),
        Do(200, f'{{"choices": [{{"finish_reason": "stop", "message": {{"refusal": "not {SECRET}"}}}}]}}'),
        Do(200, f'{{"choices": [{{"finish_reason": "{SECRET}", "message": {{"content": "3"}}}}]}}'),
        Do(400, json.dumps({"error": {"message": "x" * 280 + SECRET}})),
        Do(400, "x" * 80 + SECRET),
        Do(307, "", {"Location": "http://x/" + "x" * 180 + SECRET}),
    ],
    ids=["no JSON", "HTML", "refusal", "finish_reason", "cut error", "cut text", "cut address"],
)
def test_no_row_has_the_key_whole_or_in_part(fault: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traps: status 200, and an error that is shortened in the middle of the key."""
    monkeypatch.setenv("SELFREFINE_API_KEY", SECRET)
    with faulty(always(fault)) as server:
        error = answers(engine(server), "a", "b")[1, 0].error
    assert error and SECRET[:4] not in error


def test_a_cut_off_answer_says_so() -> None:
    body = '{"choices": [{"finish_reason": "length", "message": {"content": "3 and"}}]}'
    with faulty(always(Do(200, body))) as server:
        found = answers(engine(server), "a", "b")
    assert (found[1, 0].text, found[1, 0].finish_reason, found[1, 0].error) == ("3 and", "length", None)


def test_a_request_that_breaks_the_server_each_time_is_a_row_while_the_others_are_answered() -> None:
    with faulty(always(Do(500, "segfault"))) as server:
        found = answers(engine(server), "a", "b", "c")
    assert found[1, 0].error == "HTTP 500: no JSON: segfault; asked 3 times"
    assert found[0, 0].text == found[2, 0].text == "3"


def test_a_server_that_is_gone_for_good_ends_the_work_and_makes_no_rows() -> None:
    with faulty() as server:
        made = engine(server)
        server.kill()
        with pytest.raises(EngineError, match="asked 3 times\nwhat is written stays"):
            answers(made, "a", "b")


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_key_that_is_revoked_or_a_model_that_is_unloaded_on_the_way_makes_no_rows(status: int) -> None:
    def ends(number: int, payload: dict[str, Any]) -> Do | None:
        server.broken = status if number >= 3 else server.broken
        return Do(status, "no more") if server.broken else None

    with faulty(ends) as server, pytest.raises(EngineError, match=f"HTTP {status}"):
        answers(engine(server, connections=1), *"abcdef")


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (Do(200, "<html><title>Maintenance</title>"), r"an HTML page \(Maintenance\)"),
        (Do(302, "", {"Location": "http://login"}), "sends you to http://login"),
        (Do(400, '{"error": {"message": "Your credit balance is too low"}}'), "credit balance"),
    ],
    ids=["page", "redirect", "400"],
)
def test_a_page_or_a_refusal_in_place_of_all_answers_makes_no_rows(page: Do, why: str) -> None:
    """Trap: a proxy's page has status 200. Each of the rows that are left would be committed as an error."""

    def ends(number: int, payload: dict[str, Any]) -> Do | None:
        server.broken = page if number >= 3 else server.broken
        return page if server.broken else None

    with faulty(ends) as server, pytest.raises(EngineError, match=why):
        answers(engine(server, connections=1), *"abcdef")


def test_no_answer_to_anything_is_an_error() -> None:
    with (
        faulty(lambda number, payload: Do(404, "gone")) as server,
        pytest.raises(EngineError, match=r"no answer to any of 2 requests: HTTP 404: no JSON: gone"),
    ):
        answers(engine(server), "a", "b")


def test_a_busy_server_is_no_rows_fault() -> None:
    """Trap: a rate limit that outlasts the tries would become rows that are never asked for again."""
    with (
        faulty(always(Do(429, "slow down"))) as server,
        pytest.raises(EngineError, match="HTTP 429: no JSON: slow down; asked 3 times"),
    ):
        answers(engine(server), "a", "b", "c")


def test_a_server_that_asks_to_wait_for_a_day_is_not_waited_for() -> None:
    with (
        faulty(always(Do(429, "quota", {"Retry-After": "86400"}))) as server,
        pytest.raises(EngineError, match="it asks to wait 86,400 s"),
    ):
        answers(engine(server), "a", "b")


def test_an_answer_that_takes_too_long_is_asked_for_again() -> None:
    with faulty(once(Do(200, "{}", slow_s=0.6))) as server:
        found = answers(engine(server, timeout_s=0.3), "a", "b")
    assert found[1, 0].text == "3" and len(server.asked) == 3


def test_an_answer_that_comes_byte_by_byte_has_the_same_time_limit() -> None:
    """The client's own limit begins again with every byte: such a server would hold a request for ever."""
    with faulty(once(Do(200, "{" + " " * 100_000, drip_s=0.02))) as server:
        said: list[str] = []
        found = answers(engine(server, timeout_s=0.3, say=said.append), "a", "b")
    assert found[1, 0].text == "3"
    assert "no whole answer within 0.3 s" in said[0]


def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfrefine.engines.openai_http.MOST_BYTES", 1 << 20)
    with faulty(always(Do(200, b" " * ((1 << 20) + 1)))) as server:
        found = answers(engine(server), "a", "b")
    assert found[1, 0].error == "the answer is longer than 1 MiB"


def test_two_servers_share_the_work_and_one_that_is_killed_in_the_middle_loses_nothing() -> None:
    """Each request is answered once, whoever is asked; rows say which prompt and seed they answer."""

    def kills(number: int, payload: dict[str, Any]) -> Do | None:
        if number < 5:
            return None
        first.http.socket.close()  # no further connections
        return Do(hang_up=True)

    said: list[str] = []
    reads = {"answer": lambda payload: f"{last(payload)}:{payload['seed']}"}
    with faulty(kills, **reads) as first, faulty(**reads) as second:
        made = engine(first, second, say=said.append)
        texts = [f"t{i}" for i in range(30)]
        found = answers(made, *texts, n=2)
    assert {key: one.text for key, one in found.items()} == {
        (i, k): f"t{i}:{10 * i + k}" for i in range(30) for k in range(2)
    }
    assert len(second.asked) >= 60 - 5 and len(first.asked) >= 5
    assert any(line.startswith(first.url) and "asking again" in line for line in said)


def test_no_server_gets_more_requests_at_once_than_it_may() -> None:
    with faulty() as dead, faulty(lambda number, payload: time.sleep(0.05)) as server:
        made = engine(dead, server, connections=3)
        dead.kill()  # the threads for both are there for one
        answers(made, *"abcdefghijkl")
    assert 2 <= server.most_at_once <= 3


def test_connections_are_kept() -> None:
    """Two for the work, which the looking before it may have opened; a new one for each of 27 requests costs
    a handshake each."""
    with faulty() as server:
        answers(engine(server), *(f"t{i}" for i in range(20)))
    assert len(server.heads) > 20 and server.accepted <= 2
