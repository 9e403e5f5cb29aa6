"""What a step may ask of a model. Two engines implement it: `local` (transformers) and `scripted`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from selfrefine.records import FinishReason, Message


class Sampling(Struct, frozen=True, kw_only=True):
    """How to draw. temperature 0 is greedy; top_p 1 and top_k 0 are off."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()


class Request(Struct, frozen=True, kw_only=True):
    """One prompt and the seeds of the completions wanted for it: the prompt is computed once."""

    prompt_token_ids: tuple[int, ...]
    seeds: tuple[int, ...]


class Completion(Struct, frozen=True, kw_only=True):
    """`request` and `index` say which seed of which request this answers."""

    request: int
    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Nats at temperature 1, one per sampled token (see records.Sample.logprobs)."""
    finish_reason: FinishReason
    error: str | None = None


class Engine(Protocol):
    """A model with a tokenizer, at one policy (base or base + adapter)."""

    @property
    def signature(self) -> str:
        """How numbers are made here: engine, device, dtype, library versions that matter."""

    @property
    def policy(self) -> str:
        """Hash of weights + adapter; stored with every sample."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt + completion the model takes."""

    @property
    def unit_tokens(self) -> int:
        """New tokens of a commit unit at most: a constant of the device class."""

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """A chat, rendered with the model's template up to where the assistant begins to speak.

        Text inside messages is data: special-token strings in it are encoded as plain text.
        """

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Plain text as token ids, nothing added, no special token made from it."""

    def encode_answer(self, text: str) -> tuple[int, ...]:
        """`encode_text` plus the end-of-turn token: how an edited answer is trained on."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a completion: special tokens skipped."""

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
        base: bool = False,
    ) -> list[tuple[float, ...]]:
        """Teacher-forced logprobs (nats, temperature 1), one per completion token.

        base=True scores under the model without its adapter (the round-0 policy).
        """
