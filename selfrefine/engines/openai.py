"""The engine behind servers that speak OpenAI's interface for chats: llama.cpp, vLLM and others.

The server has the tokenizer and the chat template, so it is sent messages, and a row has ids and logprobs
only where the server tells them. Each row is a request of its own with its own seed, of which the lower 31
bits are sent: servers take different widths, and to llama.cpp 2^32 - 1 means "draw one".

Run against llama.cpp (xllamacpp). vLLM, Ollama and TGI were not run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import msgspec

from selfrefine.config import Sampling
from selfrefine.engines import EngineKind, LoadOptions
from selfrefine.engines.base import (
    SERVER,
    Capability,
    Completion,
    Engine,
    Request,
    make_signature,
    refused,
)
from selfrefine.engines.openai_answers import completion, reply
from selfrefine.engines.openai_http import Clean, Fault, Server, addresses, is_local, read_key
from selfrefine.engines.openai_pool import Pool
from selfrefine.engines.openai_probe import CHAT, NEUTRAL, Abilities, Facts, Patient, abilities, check, facts
from selfrefine.errors import ConfigError, EngineError
from selfrefine.records import Message
from selfrefine.runfolder.manifest import EngineFacts

UNIT_TOKENS = 1 << 15
"""New tokens of a commit unit: what an interrupted command has asked in vain at most. The answers of a unit
are waited for together."""
UNKNOWN_CONTEXT = 1 << 30
"""A server that does not say how much it takes refuses what is too long by itself."""
SEED_MASK = (1 << 31) - 1


class Served(Engine):
    """One model, by its name, on one server or several that share the work."""

    capabilities = frozenset[Capability]({"sample"})

    def __init__(self, name: str, options: LoadOptions, base_key: str = "engine.base_url") -> None:
        """Raises: ConfigError for an address or a key that cannot be used; EngineError where no server
        answers, has the model, or answers chats."""
        own = options.servers
        key = read_key(own)
        self.name = name
        self.servers = [Server(address, own, key) for address in addresses(own.base_url, base_key)]
        found, silent, self._unseen = [], list[str](), set[Server]()
        for server in self.servers:
            try:
                patient = Patient(server, own, options.say)
                found.append((facts(patient, name), abilities(patient, name)))
            except Fault as fault:
                silent.append(f"{server.address}: {fault.why}")
                self._unseen.add(server)
        if not found:
            raise EngineError(f"openai:{name}: no server answers: {'; '.join(silent)}")
        for line in silent:
            options.say(line)
        self._facts = _agreed(name, [one for one, _ in found])
        self.abilities = reduce(Abilities.common, (can for _, can in found))
        self._pool = Pool(self.servers, own, self._check, options.say, doubted=tuple(self._unseen))
        if self.abilities.logprobs and self.abilities.token_ids:
            self.capabilities = frozenset[Capability]({"sample", "logprobs"})
        self._answered = False
        self._said = tuple(_notes(self.servers, self.abilities, has_key=key is not None))

    def _check(self, server: Server) -> None:
        """Whether a server is back, with the same model. Raises: Fault."""
        try:
            now = facts(server, self.name)
            if server in self._unseen:
                lacks = set(self.abilities.words()) - set(abilities(server, self.name).words())
                if lacks:
                    raise Fault(f"it cannot do what the others can: {', '.join(sorted(lacks))}")
        except EngineError as error:  # another server may still have it
            raise Fault(str(error)) from None
        if now.known and self._facts.known and now.known != self._facts.known:
            raise Fault("it has another model by this name now")
        check(server, self.name, self.abilities.limit)
        self._unseen.discard(server)

    @property
    def signature(self) -> str:
        # "none": how a server rounds is not known, so no ratio of policies is built on its logprobs.
        return make_signature(SERVER, "server", "none", " ".join(self.abilities.words()), self.name)

    @property
    def policy(self) -> str:
        """Of the name and what the server says of the model. Its weights are not seen."""
        told = msgspec.json.encode([self.name, self._facts.known], order="deterministic")
        return hashlib.sha256(b"openai" + told).hexdigest()

    @property
    def context_tokens(self) -> int:
        return self._facts.context_tokens or UNKNOWN_CONTEXT

    @property
    def unit_tokens(self) -> int:
        return UNIT_TOKENS

    @property
    def notes(self) -> tuple[str, ...]:
        return self._said

    def facts(self) -> EngineFacts:
        return EngineFacts(
            model={
                "id": f"openai:{self.name}",
                "weights_sha256": self.policy,
                "can": " ".join(self.abilities.words()),
            },
            device="server",
            unit_tokens=self.unit_tokens,
        )

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return ()

    def encode_text(self, text: str) -> tuple[int, ...]:
        raise EngineError(
            f"openai:{self.name}: its tokenizer is on the server, which does not count tokens either, so "
            "costs cannot be compared; set critique.control = false"
        )

    def encode_answer(self, text: str) -> tuple[int, ...]:
        return self.encode_text(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Nothing: ids cannot be read here, so no text is taken for theirs."""
        return ""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        rows = [(at, k) for at, request in enumerate(requests) for k in range(len(request.seeds))]
        base = self._payload(sampling)

        def ask(server: Server, number: int) -> bytes:
            at, k = rows[number]
            seeded = {"seed": requests[at].seeds[k] & SEED_MASK} if self.abilities.seed else {}
            chat = [{"role": one.role, "content": one.content} for one in requests[at].messages]
            body = server.ask("POST", CHAT, base | seeded | {"messages": chat})
            reply(body, server.clean)  # a page in place of an answer may be all that comes from now on
            return body

        why = ""
        for number, found in self._pool.run(len(rows), ask):
            # They have one key, so whichever answered: its own is taken out.
            answer = _read(*rows[number], found, sampling.stop, self.servers[0].clean)
            self._answered |= answer.error is None
            why = why or answer.error or ""
            yield [answer]
        if rows and not self._answered:  # before they are committed: it is no row's fault
            raise EngineError(f"openai:{self.name}: no answer to any of {len(rows):,} requests: {why}")

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        *,
        bare: bool = False,
    ) -> list[tuple[float, ...]]:
        raise EngineError(f"openai:{self.name}: a server cannot score given texts")

    def _payload(self, sampling: Sampling) -> dict[str, Any]:
        """What all requests have in common. Raises: ConfigError for settings that the server refuses."""
        own: dict[str, Any] = {
            "model": self.name,
            self.abilities.limit: sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        more = {
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repetition_penalty": sampling.repetition_penalty,
        }
        if self.abilities.sampling:
            own |= more
        elif more != NEUTRAL:
            raise ConfigError(
                f"openai:{self.name}: this server refuses top_k, min_p and repetition_penalty; leave them out"
            )
        if self.abilities.logprobs:
            own |= {"logprobs": True}
        if sampling.stop and self.abilities.stop:  # answers are cut here anyway, and some refuse it
            own |= {"stop": list(sampling.stop)}
        return own


def _read(at: int, k: int, found: bytes | Fault, stop: Sequence[str], clean: Clean) -> Completion:
    if isinstance(found, Fault):
        return refused(at, k, found.why)
    try:
        return completion(at, k, reply(found, clean), stop, clean)
    except Fault as fault:
        return refused(at, k, fault.why)


def _agreed(name: str, found: Sequence[Facts]) -> Facts:
    """Raises: EngineError where one name stands for two models."""
    told = [one.known for one in found if one.known]  # not every server says something of its models
    if any(known != told[0] for known in told):
        raise EngineError(f"openai:{name}: the servers have different models by this name")
    rooms = [one.context_tokens for one in found if one.context_tokens]
    return Facts(known=told[0] if told else {}, context_tokens=min(rooms, default=None))


def _notes(servers: Sequence[Server], can: Abilities, *, has_key: bool) -> Iterator[str]:
    for server in servers:
        if server.address.startswith("http:") and not is_local(server.address):
            what = "prompts, answers and the key" if has_key else "prompts and answers"
            yield f"{server.address} is another machine, and without https {what} can be read on the way"
    lacks = {
        "logprobs": "logprobs (rows have none, and no ids)",
        "seed": "a seed (the same command samples other answers)",
        "stop": "stop texts (answers are cut here, and what follows is paid for)",
        "sampling": "top_k, min_p and repetition_penalty (it samples with its own)",
    }
    if not can.draws:
        yield "the server does not sample: at temperature 1 all answers to a prompt were the same"
    missing = [words for key, words in lacks.items() if not getattr(can, key)]
    if missing:
        yield f"the server does not give or take: {'; '.join(missing)}"


def _load(name: str, adapter: Path | None, options: LoadOptions) -> Served:
    if not name:
        raise ConfigError("--model openai: names no model; use openai:NAME, by the server's name for it")
    if adapter is not None:
        raise ConfigError(
            f"--adapter {adapter}: a server loads its adapters itself; use its name for the model"
        )
    return Served(name, options)


OPENAI = EngineKind(
    name="openai",
    spelling="openai:NAME (with --base-url)",
    about="a model on servers that speak OpenAI's chat interface, such as llama.cpp or vLLM; it only answers",
    load=_load,
)
