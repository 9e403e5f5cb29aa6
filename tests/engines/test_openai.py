"""The engine on servers: what each fault of a server comes to. A real client, real sockets, a server that
fails on purpose (faulty.py); backoff is 0, so nothing waits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from faulty import Do, Faulty, faulty, last

from selfrefine.config import Sampling
from selfrefine.engines import LoadOptions
from selfrefine.engines.base import Completion, Request, exact_logprobs
from selfrefine.engines.openai import Served
from selfrefine.errors import ConfigError, EngineError
from selfrefine.records import Message, Sample, Task
from selfrefine.serving import EngineConfig
from selfrefine.steps.resume import resume


def settings(*servers: Faulty, **more: Any) -> EngineConfig:
    own = {"connections": 2, "retries": 2, "backoff_s": 0.0, "timeout_s": 5.0} | more
    return EngineConfig(base_url=",".join(server.url for server in servers), **own)


def engine(*servers: Faulty, say: Callable[[str], object] = lambda line: None, **more: Any) -> Served:
    return Served("m", LoadOptions(servers=settings(*servers, **more), say=say))


def requests(*texts: str, n: int = 1) -> list[Request]:
    """Row k of prompt i has seed 10 i + k."""
    return [
        Request(
            prompt_token_ids=(),
            seeds=tuple(10 * i + k for k in range(n)),
            messages=(Message(role="user", content=text),),
        )
        for i, text in enumerate(texts)
    ]


def answers(
    made: Served, *texts: str, n: int = 1, sampling: Sampling = Sampling(max_new_tokens=8)
) -> dict[tuple[int, int], Completion]:
    found = [one for batch in made.generate(requests(*texts, n=n), sampling) for one in batch]
    assert len({(one.request, one.index) for one in found}) == len(found)
    return {(one.request, one.index): one for one in found}


def once(fault: Do, text: str = "b") -> Callable[[int, dict[str, Any]], Do | None]:
    """The fault for the first request with this text, and answers after it."""
    left = [fault]
    return lambda number, payload: left.pop() if last(payload) == text and left else None


def always(fault: Do, text: str = "b") -> Callable[[int, dict[str, Any]], Do | None]:
    return lambda number, payload: fault if last(payload) == text else None


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


def test_what_a_server_does_not_give_is_seen_and_not_asked_for() -> None:
    """`transformers serve` takes n and logprobs, says 200 and gives neither."""
    with faulty(can=("stop",), answer=lambda payload: "three") as server:
        made = engine(server)
        [found] = answers(made, "a").values()
    assert made.abilities.words() == ("sampling", "draws", "stop")
    assert found.token_ids == () and found.logprobs is None
    assert found.counted_tokens == 6  # "three" and its end, by the server's own count
    assert not {"seed", "logprobs", "n"} & server.asked[0].keys()
    assert made.signature == "openai|server|none|sampling draws stop|m"
    assert not exact_logprobs(made.signature)
    assert "logprobs" not in made.capabilities
    [note] = made.notes
    assert "logprobs" in note and "a seed" in note


def test_a_server_that_answers_greedily_whatever_the_temperature_is_noticed() -> None:
    """`transformers serve` does, with a model whose generation_config does not sample: eight equal samples of
    each prompt, and nothing to learn from."""
    with faulty(can=("greedy", "stop")) as server:
        made = engine(server)
    assert made.abilities.words() == ("sampling", "stop")
    assert made.notes[0].startswith("the server does not sample")


def test_fields_that_a_server_refuses_are_left_out_and_settings_that_need_them_are_refused() -> None:
    refuses = ("top_k", "min_p", "repeat_penalty", "repetition_penalty", "response_format")
    with faulty(refuses=refuses) as server:
        made = engine(server)
        assert made.abilities.words() == ("draws", "logprobs", "n", "seed", "stop")
        assert len(answers(made, "a")) == 1
        assert "top_k" not in server.asked[0]
        with pytest.raises(ConfigError, match="refuses top_k"):
            answers(made, "a", sampling=Sampling(top_k=5))


def test_a_server_that_refuses_a_seed_is_asked_without_one_what_else_it_can() -> None:
    """Every question had one, so it was said not to sample and to ignore stop texts."""
    with faulty(can=("stop",), refuses=("seed", "top_k")) as server:
        made = engine(server)
        assert len(answers(made, "a", "b")) == 2
    assert made.abilities.words() == ("draws", "stop")
    assert not any("does not sample" in note for note in made.notes)


def test_stop_texts_are_not_sent_where_they_are_refused() -> None:
    """As by OpenAI's models that reason: each request would be refused. Answers are cut here."""
    with faulty(refuses=("stop",), answer=lambda payload: "ab.c") as server:
        found = answers(engine(server), "a", "b", sampling=Sampling(stop=(".",)))
    assert [one.text for one in found.values()] == ["ab", "ab"]


def test_the_limit_has_the_name_that_the_server_wants() -> None:
    """OpenAI's newer models refuse max_tokens."""
    refuses = ("max_tokens", "top_k", "logprobs")
    with faulty(once(Do(500, "oops")), refuses=refuses) as server:
        made = engine(server)
        assert len(answers(made, "a", "b", sampling=Sampling(max_new_tokens=5))) == 2
    assert made.abilities.words() == ("draws", "seed", "stop", "max_completion_tokens")
    assert {one["max_completion_tokens"] for one in server.asked} == {5}


def test_a_server_that_refuses_every_chat_says_why() -> None:
    with faulty(refuses=("messages",)) as server, pytest.raises(EngineError, match="argument: messages"):
        engine(server)


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


def test_servers_that_lack_the_model_or_want_a_key_or_do_not_answer_are_refused_when_loaded() -> None:
    with (
        faulty(models=("other", "third")) as server,
        pytest.raises(EngineError, match="it has: other, third"),
    ):
        engine(server)
    denied = Do(401, json.dumps({"error": {"message": "no key"}}))
    with faulty(models=denied) as server, pytest.raises(EngineError, match="key_env"):
        engine(server)
    with faulty() as server:
        server.kill()
        with pytest.raises(EngineError, match="no server answers"):
            engine(server)


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_without_a_list_of_models_can_be_used(status: int) -> None:
    """`transformers serve` 5.23 answers its list with 500 where a model is a folder."""
    with faulty(models=Do(status, "Internal Server Error")) as server:
        assert len(answers(engine(server), "a")) == 1


def test_one_of_two_servers_without_a_list_of_models_is_no_other_model() -> None:
    """Nor is one whose list is there when it is looked at later."""
    with faulty() as first, faulty(models=Do(503, "busy")) as second:
        assert engine(first, second).policy == engine(second, first).policy == engine(first).policy
        said: list[str] = []
        made = engine(second, say=said.append)
        second.models, second.faults = (), once(Do(500, "oops"))
        assert len(answers(made, "a", "b")) == 2
    assert not any("another model" in line for line in said)


def test_a_connection_that_breaks_while_the_server_is_looked_at_is_tried_once_more() -> None:
    """`transformers serve` closes the connection after that error, under the next request."""
    with faulty() as server:
        server.break_probes = 1
        assert len(answers(engine(server), "a")) == 1
        server.break_probes = 2
        with pytest.raises(EngineError, match="the connection broke"):
            engine(server)


def test_a_server_that_is_busy_while_it_is_looked_at_is_waited_for() -> None:
    """A key with few requests a minute does not get through seven at once."""
    said: list[str] = []
    with faulty() as server:
        server.busy_probes = 2
        assert "seed" in engine(server, say=said.append).abilities.words()
        assert said == [f"{server.url}: HTTP 429: no JSON: slow down; asking again in 0.0 s"] * 2
        server.busy_probes = 3
        with pytest.raises(EngineError, match="HTTP 429"):
            engine(server)


def test_of_two_servers_one_may_be_down_when_the_work_begins() -> None:
    said: list[str] = []
    with faulty() as first, faulty() as second:
        first.kill()
        made = engine(first, second, say=said.append)
        assert [one.text for one in answers(made, "a", "b").values()] == ["3", "3"]
    assert said[0].startswith(first.url)


@pytest.mark.parametrize(
    ("owner", "can", "why"),
    [
        ("other", ("n", "seed", "stop", "logprobs"), "another model"),
        ("faulty", ("stop",), "logprobs, n, seed"),
    ],
)
def test_a_server_that_was_down_when_the_work_began_is_looked_at_before_it_gets_any(
    owner: str, can: tuple[str, ...], why: str
) -> None:
    """It was not asked what it has and can: rows would be another model's, or lack their seed."""
    looked, said = threading.Event(), list[str]()

    def say(line: str) -> None:
        said.append(line)
        if line.startswith(first.url) and why in line:
            looked.set()

    def waits(number: int, payload: dict[str, Any]) -> None:
        looked.wait(60)

    with (
        faulty(can=can) as first,
        faulty(waits) as second,
    ):
        first.owner, first.break_probes = owner, 2
        made = engine(first, second, say=say, timeout_s=90.0)
        assert len(answers(made, *(f"t{i}" for i in range(20)))) == 20
    assert first.asked == [] and len(second.asked) == 20
    assert looked.is_set(), said


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "needs the address"),
        ("ftp://x", "not an address"),
        ("http://user:secret@x/v1", "no user, password or query"),
        ("http://x/v1?key=secret", "no user, password or query"),
        ("http://x:port", "not an address"),
        ("http://a..b/v1", "not an address"),
        (f"http://{'x' * 64}.org/v1", "not an address"),
        ("http://x/v1,http://x/v1/", "named twice"),
    ],
)
def test_addresses_that_are_none(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as error:
        Served("m", LoadOptions(servers=EngineConfig(base_url=url)))
    assert "secret" not in str(error.value)


def test_a_server_that_comes_back_with_another_model_gets_no_more_work() -> None:
    """Trap: restarted with other weights under the same name, it would answer the rest of the rows."""

    def swaps(number: int, payload: dict[str, Any]) -> Do | None:
        if len(first.asked) > 2 and first.owner != "other":
            first.owner = "other"
            return Do(500, "restarting")
        return None

    with (
        faulty(swaps, lambda payload: "other" if first.owner == "other" else "3") as first,
        faulty() as second,
    ):
        found = answers(engine(first, second, connections=1), *[f"t{i}" for i in range(20)])
    assert {one.text for one in found.values()} == {"3"}
    with faulty() as alone, faulty() as twin:
        twin.owner = "other"
        with pytest.raises(EngineError, match="different models by this name"):
            engine(alone, twin)
