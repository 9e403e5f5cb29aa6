"""What may be asked of a model: two contracts. An `Engine` answers and scores, a `Trainer` learns.

They are two because the model that samples need not lie in the process that trains: a fine-tune takes a
trainer, and whoever called it then tells the engine which adapter is the policy. An engine says what it can
do (`capabilities`) and what else is known of it; nobody tells engines apart by their class or their name.

An engine states `capabilities`, `signature`, `policy`, `context_tokens`, the tokeniser's four methods,
`generate` and `score`. The rest has the defaults written here, inherited by naming `Engine` as base class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import UNSET, Struct, UnsetType

from selfrefine.config import LoraConfig, Sampling
from selfrefine.errors import EngineError
from selfrefine.memory import Memory
from selfrefine.records import FinishReason, Message
from selfrefine.runfolder.manifest import EngineFacts

Capability = Literal["sample", "logprobs", "score", "adapters", "train"]
"""sample: `generate`. logprobs: its completions carry them. score: `score`. adapters: `use_adapter` takes a
folder. train: `trainer` gives one, with these very weights."""

EXACT = "float32"
SERVER = "openai"
"""The kind, in a signature, of engines whose weights are elsewhere."""


def make_signature(kind: str, device: str, precision: str, *more: str) -> str:
    """How numbers are made, as rows and rewards record it: `kind|device|precision|…`.

    precision: EXACT where recorded logprobs are the policy's own up to float32 rounding, so that training in
    float32 computes the same ones. Anything else (the name of a half-precision or quantised dtype, `none`)
    says that they are not.
    """
    return "|".join((kind, device, precision, *more))


def exact_logprobs(signature: str) -> bool:
    """May a ratio of policies be built on logprobs recorded under this signature (a row's `engine`)?

    It is read off what `make_signature` wrote, whatever the engine's kind, because a row has nothing else.
    Where it says nothing the answer is no, and training computes them anew from the policy that sampled:
    sampling and training that round differently are apart by up to tenths of a nat, which would look like
    a policy that has moved.
    """
    fields = signature.split("|")
    return len(fields) > 2 and fields[2] == EXACT


def from_server(signature: str) -> bool:
    """Was a row sampled by a server, whose weights are not seen (a row's `engine`)?"""
    return signature.partition("|")[0] == SERVER


class Identity(Struct, frozen=True, kw_only=True):
    """Which weights: what a manifest and an adapter's sidecar say of the base model."""

    name: str
    revision: str
    weights_sha256: str


class Place(NamedTuple):
    """By what plain transformers and peft find a model: a folder, or a hub id and its revision."""

    path: str
    revision: str | None = None


class Request(Struct, frozen=True, kw_only=True):
    """One prompt and the seeds of the completions wanted for it: the prompt is computed once."""

    prompt_token_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    messages: tuple[Message, ...] = ()
    """The chat that the ids were made from, for an engine that knows no ids: a server has the tokenizer."""


class Completion(Struct, frozen=True, kw_only=True):
    """`request` and `index` say which seed of which request this answers."""

    request: int
    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    """Nats at temperature 1, one per sampled token (see records.Sample.logprobs); null where a server tells
    none."""
    finish_reason: FinishReason
    error: str | None = None
    counted_tokens: int | None = None
    """How many were sampled, where a server tells that and no `token_ids`."""

    @property
    def sampled_tokens(self) -> int:
        """0 where that is not known."""
        return len(self.token_ids) or self.counted_tokens or 0

    @property
    def count(self) -> int | UnsetType:
        """`counted_tokens` as rows have it."""
        return UNSET if self.counted_tokens is None else self.counted_tokens


def refused(request: int, index: int, why: str) -> Completion:
    """No answer, and why."""
    nothing: dict[str, Any] = {"text": "", "token_ids": (), "logprobs": ()}
    return Completion(request=request, index=index, **nothing, finish_reason="error", error=why)


def require(engine: Engine, capability: Capability, why: str) -> None:
    """Raises: EngineError where the engine cannot do what is asked of it; `why` begins the sentence."""
    if capability not in engine.capabilities:
        can = ", ".join(sorted(engine.capabilities)) or "nothing"
        raise EngineError(f"{why}, but {engine.facts().model['id']} cannot {capability} (it supports: {can})")


def _kind(engine: Engine) -> str:
    name = str(engine.facts().model["id"])
    return "a scripted model" if name.partition(":")[0] == "scripted" else f"{name}: this engine"


class Tokeniser(Protocol):
    """From messages and text to token ids and back."""

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """A chat, rendered with the model's template up to where the assistant begins to speak. Empty where
        the tokenizer is a server's, which is sent the messages.

        Text inside messages is data: special-token strings in it are encoded as plain text.
        """

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Plain text as token ids, nothing added, no special token made from it."""

    def encode_answer(self, text: str) -> tuple[int, ...]:
        """`encode_text` plus the end-of-turn token: how an edited answer is trained on."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a completion: special tokens skipped."""


class Engine(Tokeniser, Protocol):
    """A model with a tokeniser, at one policy (the bare model, or the model + adapter)."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this engine can do."""

    @property
    def signature(self) -> str:
        """How numbers are made here; of a local model, written by `make_signature`."""

    @property
    def policy(self) -> str:
        """Hash of weights + adapter; stored with every sample."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt + completion the model takes."""

    @property
    def unit_tokens(self) -> int:
        """New tokens of a commit unit at most: a constant of the device class."""
        return 1 << 20

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences a user should read once."""
        return ()

    @property
    def memory(self) -> Memory | None:
        """The budgets that memory made smaller; None where nothing of this process's memory is used."""
        return None

    def facts(self) -> EngineFacts:
        """What a run's manifest says of this engine: another one on the same run is refused."""
        return EngineFacts(
            model={"id": self.signature, "weights_sha256": self.policy}, unit_tokens=self.unit_tokens
        )

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        """Completions as they finish, in lists; every (request, index), in any order.

        Once each, unless memory ran out on the way (`memory.py`): then all come again and the later counts.

        A prompt that leaves no room in the context yields completions with finish_reason "error".
        """

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        *,
        bare: bool = False,
    ) -> list[tuple[float, ...]]:
        """Teacher-forced logprobs (nats, temperature 1), one per completion token, under the engine's policy.

        bare=True: under the model without any adapter. That is a run's round-0 policy only where the run does
        not start from an adapter.
        """

    def use_adapter(self, folder: Path | None) -> None:
        """Make the model + the adapter in `folder` (None: the bare model) the policy.

        Raises: ConfigError for an adapter of another model, EngineError where there are no adapters.
        """
        if folder is not None:
            raise EngineError(f"{_kind(self)} does not support adapters")

    def trainer(self) -> Trainer:
        """What trains these weights. Raises: EngineError for an engine that only answers."""
        raise EngineError(f"{_kind(self)} cannot be trained; use --model smollm2")

    def keep_date(self, date: str | None) -> None:
        """The day that a chat template with a date is given (ISO 8601, as in `facts`); None: today."""
        return

    def save_merged(self, folder: Path, dtype: str | None = None) -> None:
        """Write model + adapter as a plain model, in `dtype` if one is given.

        Raises: EngineError where there are no weights to do it.
        """
        raise EngineError(f"{_kind(self)} has no weights to merge")


class Trainer(Protocol):
    """A base model on which adapters are trained. Knows nothing of sampling.

    Where it shares its weights with an engine (`Engine.trainer`), `open` makes the engine's policy the bare
    model, and so it stays until somebody calls `use_adapter`.
    """

    @property
    def tokeniser(self) -> Tokeniser:
        """For texts that were edited, and for rows without ids."""

    @property
    def memory(self) -> Memory:
        """The budgets that memory made smaller."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt + completion the model takes."""

    @property
    def exact_logprobs(self) -> bool:
        """Does this model compute in float32, so that exact recorded logprobs are what it computes itself?"""

    def open(self, start: Path | None, settings: LoraConfig, seed: int) -> AbstractContextManager[Any]:
        """Inside, a PeftModel to train: a fresh adapter (None), or the one in `start`, continued.

        Raises: ConfigError for settings or an adapter that do not fit the model.
        """

    def as_policy(self, opened: Any, folder: Path | None) -> AbstractContextManager[None]:
        """Inside, a model from `open` computes as base + the adapter in `folder`, or as the bare model."""

    def save(self, opened: Any, folder: Path) -> None:
        """Write the adapter of a model from `open` into a folder."""
