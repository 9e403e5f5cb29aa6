"""The engine on a transformers model: CPU, CUDA or MPS. CUDA and MPS paths are written, not run here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from selfrefine.compute.device import BUDGETS, SCORE_TOKENS, SLACK, UNIT_TOKENS, Budget
from selfrefine.compute.forward import cut, scored
from selfrefine.compute.plain import plain
from selfrefine.config import Sampling
from selfrefine.engines.answers import at_stop_text, completion, refusals
from selfrefine.engines.base import Capability, Completion, Engine, Identity, Place, Request, make_signature
from selfrefine.engines.tokeniser import LocalTokeniser
from selfrefine.engines.weights import LocalTrainer, Weights
from selfrefine.memory import Memory, out_of_memory
from selfrefine.records import Message
from selfrefine.runfolder.manifest import EngineFacts
from selfrefine.sampling.decode import Job, decode, never


class LocalEngine(Engine):
    """A base model, its tokenizer, and at most one adapter on top."""

    capabilities = frozenset[Capability]({"sample", "logprobs", "score", "adapters", "train"})

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        identity: Identity,
        place: Place | None = None,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        """`place`: how plain peft finds the model, else by its name. `say` tells what a user should know."""
        self.model, self.tokenizer, self.identity = model, tokenizer, identity
        self.weights = Weights(model, identity, place, say)
        self.tokeniser = LocalTokeniser(model, tokenizer, say)
        self.stop_ids, self.end_id = self.tokeniser.stop_ids, self.tokeniser.end_id
        self.budget = BUDGETS[self.device]
        self._memory = Memory()
        self._trainer = LocalTrainer(self.weights, self.tokeniser, self._memory)

    @property
    def notes(self) -> tuple[str, ...]:
        chat = self.tokeniser.chat
        if chat.template is None:
            return ("no chat template: prompts are given as plain text, which the model continues",)
        if chat.reads_clock:
            return (
                f"the chat template writes the date into prompts ({chat.date}): the same seed gives other "
                "samples on another day; a run keeps the date it began with",
            )
        return ()

    @property
    def memory(self) -> Memory:
        return self._memory

    @property
    def device(self) -> str:
        return str(self.model.device.type)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def signature(self) -> str:
        import transformers

        how = "merged" if self.weights.merged else "unmerged"
        libraries = (f"torch {torch.__version__}", f"transformers {transformers.__version__}")
        return make_signature(
            "local", self.device, self.dtype, how, *libraries, *(("plain",) if plain() else ())
        )

    @property
    def policy(self) -> str:
        return self.weights.policy

    @property
    def context_tokens(self) -> int:
        return self.weights.context_tokens

    @property
    def unit_tokens(self) -> int:
        return UNIT_TOKENS[self.device]

    def facts(self) -> EngineFacts:
        model, chat = msgspec.structs.asdict(self.identity), self.tokeniser.chat
        return EngineFacts(
            model={
                "id": model.pop("name"),
                **model,
                **({"kernels": "plain"} if plain() else {}),
                **({"template_date": chat.date.isoformat()} if chat.reads_clock else {}),
            },
            chat_template_sha256=chat.template_sha256,
            device=self.device,
            dtype=self.dtype,
            threads=torch.get_num_threads(),
            unit_tokens=self.unit_tokens,
        )

    def keep_date(self, date: str | None) -> None:
        self.tokeniser.chat.keep_date(date)

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return self.tokeniser.encode_chat(messages)

    def encode_text(self, text: str) -> tuple[int, ...]:
        return self.tokeniser.encode_text(text)

    def encode_answer(self, text: str) -> tuple[int, ...]:
        return self.tokeniser.encode_answer(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.tokeniser.decode(token_ids)

    def use_adapter(self, folder: Path | None) -> None:
        self.weights.use(folder)

    def trainer(self) -> LocalTrainer:
        return self._trainer

    def save_merged(self, folder: Path, dtype: str | None = None) -> None:
        self.tokenizer.save_pretrained(folder)
        self.weights.save_merged(folder, dtype)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        jobs, refused = [], list[Completion]()
        for at, request in enumerate(requests):
            if no := refusals(at, request, sampling.max_new_tokens, self.context_tokens):
                refused += no
            else:
                jobs.append(Job(at, request.prompt_token_ids, request.seeds))
        if refused:
            yield refused
        stops = at_stop_text(self.tokeniser, sampling.stop) if sampling.stop else never
        while True:
            fitting = self._fitting()
            try:
                for rows in decode(self.model, jobs, sampling, self.stop_ids, fitting, stops, self.end_id):
                    yield [completion(row, self.tokeniser, sampling.stop, self.stop_ids) for row in rows]
                return
            except (RuntimeError, MemoryError) as error:
                if (told := out_of_memory(error)) is None:
                    raise
            self._sample_fewer_at_once(jobs, sampling.max_new_tokens, told)

    def _fitting(self) -> Budget:
        """What may be decoded together: the device class's constant, or what memory left of it."""
        tokens = self.memory.tokens("sampling", self.budget.tokens)
        prefill_tokens = self.budget.prefill_tokens * tokens // self.budget.tokens
        return replace(self.budget, tokens=tokens, prefill_tokens=prefill_tokens)

    def _sample_fewer_at_once(self, jobs: Sequence[Job], new_tokens: int, why: str) -> None:
        """Raises: EngineError when it was a single row already."""
        longest = max(len(job.prompt) for job in jobs)
        columns = longest + new_tokens + SLACK
        most = min(self.budget.rows, sum(len(job.seeds) for job in jobs))
        self.memory.halve(
            "sampling",
            self.budget.tokens,
            lambda tokens: max(1, min(most, tokens // columns)),
            why,
            f"a single answer of {new_tokens:,} tokens to a prompt of {longest:,} does not fit: lower "
            "generate.max_new_tokens, drop the longest prompts, or use a smaller --model",
        )

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        *,
        bare: bool = False,
    ) -> list[tuple[float, ...]]:
        pairs = list(zip(prompts, completions, strict=True))
        constant = SCORE_TOKENS[self.device]
        while True:
            try:
                with torch.inference_mode(), self.weights.bare() if bare else nullcontext():
                    return scored(self.model, pairs, self.memory.tokens("scoring", constant))
            except (RuntimeError, MemoryError) as error:
                if (why := out_of_memory(error)) is None:
                    raise
            self.memory.halve(
                "scoring",
                constant,
                partial(cut, self.model, pairs),
                why,
                "a single prompt and its answer do not fit: drop the longest, or use a smaller --model",
            )
