"""The engine on servers, when it is loaded: what a server can do, whether it is there, and whether it has the
model. A server that fails on purpose (faulty.py)."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from faulty import Do, faulty
from served import answers, engine, once

from selfrefine.config import Sampling
from selfrefine.engines import LoadOptions
from selfrefine.engines.base import exact_logprobs
from selfrefine.engines.openai import Served
from selfrefine.errors import ConfigError, EngineError
from selfrefine.serving import EngineConfig


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
