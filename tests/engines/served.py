"""An engine on servers that fail on purpose (faulty.py), and its requests. Nothing waits: backoff is 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faulty import Do, Faulty, last

from selfrefine.config import Sampling
from selfrefine.engines import LoadOptions
from selfrefine.engines.base import Completion, Request
from selfrefine.engines.openai import Served
from selfrefine.records import Message
from selfrefine.serving import EngineConfig


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
