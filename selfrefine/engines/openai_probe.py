"""What a server can do, found out once when it is loaded: by asking for it, not by its name.

A server may ignore a field in silence (`transformers serve` does so with n and logprobs), so what counts is
what comes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from selfrefine.engines.openai_answers import Reply, reply, told
from selfrefine.engines.openai_http import Fault, Server
from selfrefine.engines.openai_pool import LONGEST_WAIT_S, pause_s
from selfrefine.errors import EngineError
from selfrefine.serving import EngineConfig

CHAT, MODELS = "/chat/completions", "/models"
NEUTRAL = {"top_k": 0, "min_p": 0, "repeat_penalty": 1, "repetition_penalty": 1}
"""Beyond the original interface, off. Without them llama.cpp samples with settings of its own (top_k 40,
min_p 0.05). repeat_penalty is llama.cpp's name, repetition_penalty that of vLLM."""
_ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Write three random words."}],
    "temperature": 1,
    "top_p": 1,
}
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "one",
        "schema": {
            "type": "object",
            "properties": {"a": {"const": 1}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}
_STOPS = ["a", "e", "i", "o"]
"""No three words are written without one of these."""


class Abilities(Struct, frozen=True, kw_only=True):
    """What came back when it was asked for."""

    sampling: bool = False
    """It takes top_k, min_p and a repetition penalty. That it heeds them is not seen."""
    draws: bool = False
    """At temperature 1 two answers to one prompt differ."""
    logprobs: bool = False
    token_ids: bool = False
    n: bool = False
    """Several choices to one request. Not used: each row has a request and a seed of its own."""
    seed: bool = False
    """The same seed twice gives the same text, and another seed another."""
    stop: bool = False
    json_schema: bool = False
    max_completion_tokens: bool = False
    """It wants the limit by this name, as OpenAI's newer models do."""

    @property
    def limit(self) -> str:
        """The field with the most tokens of an answer."""
        return "max_completion_tokens" if self.max_completion_tokens else "max_tokens"

    def words(self) -> tuple[str, ...]:
        """The names of what it can."""
        return tuple(name for name, can in msgspec.structs.asdict(self).items() if can)

    def common(self, other: Abilities) -> Abilities:
        """What both can."""
        both = {name: getattr(self, name) and getattr(other, name) for name in self.__struct_fields__}
        return Abilities(**both)


class Patient(Server):
    """A server that is asked again while it says that it is busy: there may be a limit to requests a minute.
    What else it fails with is known at once."""

    def __init__(self, server: Server, settings: EngineConfig, say: Callable[[str], object]) -> None:
        self.address = server.address
        self._server, self._settings, self._say = server, settings, say

    def clean(self, text: str) -> str:
        return self._server.clean(text)

    def ask(self, method: Literal["GET", "POST"], path: str, payload: Any = None) -> bytes:
        """Raises: Fault."""
        for tries in range(1, self._settings.retries + 1):
            try:
                return self._server.ask(method, path, payload)
            except Fault as fault:
                wait = pause_s(self._settings, self.address, tries)
                wait = wait if fault.after_s is None else fault.after_s
                if not fault.busy or wait > LONGEST_WAIT_S:
                    raise
                self._say(f"{self.address}: {fault.why}; asking again in {wait:.1f} s")
                time.sleep(wait)
        return self._server.ask(method, path, payload)


class Facts(Struct, frozen=True, kw_only=True):
    """Of the model behind a name: `known` is what the list of models says of it and does not change."""

    known: dict[str, Any] = {}
    context_tokens: int | None = None


_LASTING = ("owned_by", "root", "max_model_len", "architecture")
_LASTING_META = ("n_vocab", "n_embd", "n_params", "size", "ftype", "n_ctx_train")


def facts(server: Server, name: str) -> Facts:
    """Raises: Fault where it does not answer; EngineError where it has no such model, or wants a key."""
    try:
        listed = told(server.ask("GET", MODELS))
    except Fault as fault:
        if fault.status == 0:
            raise
        if fault.status == 401:
            raise EngineError(f"{server.address}: {fault.why}\n{KEY}") from None
        return Facts()  # not every server has such a list; that of `transformers serve` fails with 500
    data = listed.get("data") if isinstance(listed, dict) else None
    models = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    if not models:
        return Facts()
    for one in models:
        aliases = one.get("aliases")
        if name == one.get("id") or (isinstance(aliases, list) and name in aliases):
            said = one.get("meta")
            meta: dict[str, Any] = said if isinstance(said, dict) else {}
            known = {key: one[key] for key in _LASTING if key in one}
            known |= {key: meta[key] for key in _LASTING_META if key in meta}
            room = meta.get("n_ctx") or one.get("max_model_len")
            return Facts(known=known, context_tokens=room if isinstance(room, int) else None)
    # Some servers answer to any name, with whatever model they have.
    names = ", ".join(server.clean(str(one.get("id")))[:80] for one in models[:8])
    raise EngineError(f"{server.address} has no model {name[:80]!r}; it has: {names}")


KEY = "give its key by the environment variable that engine.key_env names, or by engine.key_file"


def abilities(server: Server, name: str) -> Abilities:
    """Raises: Fault where it does not answer; EngineError where it answers no chat."""
    first, extra, limit, seeded = _first(server, {"model": name, **_ASKED})
    base = {"model": name, **_ASKED, **extra, limit: 8}
    # Some refuse a seed; they are asked without one what else they can.
    seeds = [{"seed": seed} if seeded else {} for seed in (1, 1, 2)]
    tokens = first.choices[0].tokens
    logprobs = bool(tokens) and all(one.logprob is not None for one in tokens)
    one, again, other = (_texts(_asked(server, base | seed)) for seed in seeds)
    return Abilities(
        sampling=bool(extra),
        draws=len({*one, *again, *other, *_texts(first)}) > 1,
        logprobs=logprobs,
        token_ids=logprobs and all(one.id is not None for one in tokens),
        n=len(first.choices) == 2,
        seed=seeded and bool(one) and one == again and one != other,
        stop=_heeds_stop(server, base | seeds[0]),
        json_schema=_heeds_schema(server, base | {limit: 32}),
        max_completion_tokens=limit != "max_tokens",
    )


def _first(server: Server, base: dict[str, Any]) -> tuple[Reply, dict[str, Any], str, bool]:
    """The answer to the most that is accepted, what of NEUTRAL that is, the name of the limit, and whether a
    seed is accepted."""
    wide = {"n": 2, "seed": 1, "logprobs": True, "top_logprobs": 1}
    for limit in ("max_tokens", "max_completion_tokens"):
        for extra, more in ((NEUTRAL, wide), ({}, wide), ({}, {"seed": 1}), ({}, {})):
            found = _asked(server, {**base, **extra, **more, limit: 8})
            if found is not None:
                return found, extra, limit, "seed" in more
    return _must(server, {**base, "max_tokens": 8}), {}, "max_tokens", False


def check(server: Server, name: str, limit: str) -> None:
    """A request that cannot be at fault itself. `limit`: see `Abilities`. Raises: Fault where it is not
    answered."""
    reply(server.ask("POST", CHAT, {"model": name, **_ASKED, limit: 1}), server.clean)


def _asked(server: Server, payload: dict[str, Any]) -> Reply | None:
    """None where it refuses this. Raises: Fault; EngineError where it refuses everything."""
    try:
        return reply(_twice(server, payload), server.clean)
    except Fault as fault:
        if fault.retry:
            raise
        if fault.status in (401, 403):
            raise EngineError(f"{server.address}: {fault.why}\n{KEY}") from None
        return None


def _must(server: Server, payload: dict[str, Any]) -> Reply:
    """Raises: Fault; EngineError with the reason why it is refused."""
    try:
        return reply(_twice(server, payload), server.clean)
    except Fault as fault:
        if fault.retry:
            raise
        raise EngineError(f"{server.address}: {fault.why}") from None


def _twice(server: Server, payload: dict[str, Any]) -> bytes:
    """A server that closes a connection after an error breaks the next request, and is there all the same."""
    try:
        return server.ask("POST", CHAT, payload)
    except Fault as fault:
        if fault.status or not fault.retry:
            raise
        return server.ask("POST", CHAT, payload)


def _texts(found: Reply | None) -> list[str]:
    return [choice.message.content or "" for choice in found.choices] if found else []


def _heeds_stop(server: Server, base: dict[str, Any]) -> bool:
    found = _asked(server, base | {"stop": _STOPS})
    return bool(found) and not any(stop in text for text in _texts(found) for stop in _STOPS)


def _heeds_schema(server: Server, base: dict[str, Any]) -> bool:
    texts = _texts(_asked(server, base | {"response_format": _SCHEMA, "temperature": 0}))
    return bool(texts) and told(texts[0].encode()) == {"a": 1}
