"""The engine on a transformers model: CPU, CUDA or MPS. CUDA and MPS paths are written, not run here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from msgspec import Struct

from selfrefine.compute import lora, products
from selfrefine.compute.forward import completion_logprobs, cut
from selfrefine.compute.packing import Pair
from selfrefine.config import LoraConfig
from selfrefine.engines.base import Completion, Request, Sampling
from selfrefine.engines.chat import ChatEncoder
from selfrefine.errors import EngineError
from selfrefine.memory import Memory, out_of_memory
from selfrefine.records import FinishReason, Message
from selfrefine.runfolder.manifest import EngineFacts
from selfrefine.sampling.decode import SLACK, Budget, Job, Live, Rules, Watcher, decode


class Identity(Struct, frozen=True, kw_only=True):
    """Which weights: what a manifest and an adapter's sidecar say of the base model."""

    name: str
    revision: str
    weights_sha256: str


BUDGETS: dict[str, Budget] = {
    # rows, cache slots, prefill tokens. On a CPU more rows only move the cache out of reach.
    "cpu": Budget(rows=128, tokens=49_152, prefill_tokens=4_096),
    "cuda": Budget(rows=512, tokens=524_288, prefill_tokens=32_768),
    "mps": Budget(rows=128, tokens=65_536, prefill_tokens=8_192),
}
UNIT_TOKENS = {"cpu": 24_576, "cuda": 1_048_576, "mps": 49_152}
"""New tokens a commit unit holds at most: about a minute of sampling a 135M model on two cores."""
SCORE_TOKENS = {"cpu": 4_096, "cuda": 32_768, "mps": 4_096}


class LocalEngine:
    """A base model, its tokenizer, and at most one adapter on top. Implements engines.base.Engine."""

    def __init__(self, model: Any, tokenizer: Any, identity: Identity) -> None:
        self.model, self.tokenizer, self.identity = model, tokenizer, identity
        # As after a training: weights that want gradients take other kernels, in inference mode too, and a
        # resumed process would sample logprobs that are off by a bit from one that went through.
        self.model.eval().requires_grad_(False)
        products.install(self.model)
        self.chat = ChatEncoder(tokenizer)
        self.budget = BUDGETS[self.device]
        self.memory = Memory()
        self._merge: lora.Merge | None = None
        self._peft: Any = None
        self._adapter_sha256 = ""
        self.stop_ids = _stop_ids(model, tokenizer)
        self.end_id = _end_of_turn(tokenizer, self.stop_ids)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences a user should read once."""
        said = []
        if self.chat.template is None:
            said.append(
                "no chat template, so prompts go in as plain text and the model just goes on from there"
            )
        return tuple(said)

    @property
    def device(self) -> str:
        return str(self.model.device.type)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def signature(self) -> str:
        import transformers

        how = "unmerged" if self._peft is not None else "merged"
        libraries = f"torch {torch.__version__}|transformers {transformers.__version__}"
        return f"local|{self.device}|{self.dtype}|{how}|{libraries}"

    @property
    def policy(self) -> str:
        import hashlib

        both = f"{self.identity.weights_sha256}+{self._adapter_sha256}"
        return hashlib.sha256(both.encode()).hexdigest()[:16]

    @property
    def context_tokens(self) -> int:
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 2**31)

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return self.chat.encode(messages)

    def encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(self.chat.encode_text(text))

    def encode_answer(self, text: str) -> tuple[int, ...]:
        return (*self.chat.encode_text(text), self.end_id)

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def use_adapter(self, folder: Path | None) -> None:
        """Make base + the adapter in `folder` (or the bare base) the policy. Raises: ConfigError."""
        self._drop_adapter()
        if folder is None:
            return
        wrapped = lora.attach(self.model, folder, self.identity.weights_sha256, trainable=False)
        if self.model.dtype == torch.float32:
            self._merge = lora.Merge(self.model, lora.deltas(wrapped))
            _unwrap(wrapped)
        else:
            # Merging in bf16 rounds the adapter away (logprobs off by up to 0.31): sample through it.
            self._peft = wrapped
        self.model.eval()
        self._adapter_sha256 = lora.adapter_sha256(folder)

    def _drop_adapter(self) -> None:
        if self._merge is not None:
            self._merge.undo()
            self._merge = None
        if self._peft is not None:
            _unwrap(self._peft)
            self._peft = None
        self._adapter_sha256 = ""

    @contextmanager
    def training(self, start: Path | None, settings: LoraConfig, seed: int) -> Iterator[Any]:
        """A PeftModel to train: a fresh adapter, or the one in `start`. Afterwards the policy is the base."""
        self._drop_adapter()
        if start is None:
            wrapped = lora.attach_new(self.model, settings, seed)
        else:
            wrapped = lora.attach(self.model, start, self.identity.weights_sha256, trainable=True)
        try:
            yield wrapped
        finally:
            _unwrap(wrapped)
            self.model.eval()

    @contextmanager
    def as_policy(self, wrapped: Any, folder: Path | None) -> Iterator[None]:
        """Inside, a PeftModel from `training` is base + the adapter in `folder` (None: the bare base)."""
        with lora.as_policy(wrapped, folder, self.identity.weights_sha256):
            yield

    def save_adapter(self, wrapped: Any, folder: Path) -> None:
        """Write the adapter of a PeftModel from `training` into a folder."""
        lora.save(wrapped, folder, self.identity.name, self.identity.weights_sha256)

    def save_merged(self, folder: Path) -> None:
        """Write base + adapter as a plain model. Raises: EngineError where the base is not float32."""
        if self._peft is not None:
            raise EngineError(
                f"merging into {self.dtype} rounds the adapter away; merge on a CPU, in float32"
            )
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def facts(self) -> EngineFacts:
        """What a run's manifest says of this engine."""
        return EngineFacts(
            model={
                "id": self.identity.name,
                "revision": self.identity.revision,
                "weights_sha256": self.identity.weights_sha256,
            },
            chat_template_sha256=self.chat.template_sha256,
            device=self.device,
            dtype=self.dtype,
            threads=torch.get_num_threads(),
            unit_tokens=self.unit_tokens,
        )

    @property
    def unit_tokens(self) -> int:
        return UNIT_TOKENS[self.device]

    @contextmanager
    def _base(self) -> Iterator[None]:
        """Inside, the model is the round-0 policy."""
        if self._merge is not None:
            self._merge.undo()
        try:
            if self._peft is not None:
                with self._peft.disable_adapter():
                    yield
            else:
                yield
        finally:
            if self._merge is not None:
                self._merge.redo()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        jobs, refused = [], []
        for at, request in enumerate(requests):
            length = len(request.prompt_token_ids)
            if length + sampling.max_new_tokens <= self.context_tokens and length:
                jobs.append(Job(at, request.prompt_token_ids, request.seeds))
                continue
            why = (
                f"the prompt has {length} tokens and {sampling.max_new_tokens} new ones were asked for, "
                f"the model's context has {self.context_tokens}"
                if length
                else "the prompt is empty: not a single token to go on from"
            )
            refused += [_refusal(at, i, why) for i in range(len(request.seeds))]
        if refused:
            yield refused
        rules = Rules(
            sampling.temperature, sampling.top_k, sampling.top_p, sampling.max_new_tokens, self.stop_ids
        )
        watcher = _StopStrings(self, sampling.stop) if sampling.stop else Watcher()
        while True:
            try:
                for rows in decode(self.model, jobs, rules, self._fitting(), watcher, self.end_id):
                    yield [self._completion(row, sampling) for row in rows]
                return
            except (RuntimeError, MemoryError) as error:
                if (told := out_of_memory(error)) is None:
                    raise
            self._sample_fewer_at_once(jobs, rules, told)

    def _fitting(self) -> Budget:
        """What may be decoded together: the device class's constant, or what memory left of it."""
        tokens = self.memory.tokens("sampling", self.budget.tokens)
        prefill_tokens = self.budget.prefill_tokens * tokens // self.budget.tokens
        return replace(self.budget, tokens=tokens, prefill_tokens=prefill_tokens)

    def _sample_fewer_at_once(self, jobs: Sequence[Job], rules: Rules, why: str) -> None:
        """Raises: EngineError when it was a single row already."""
        longest = max(len(job.prompt) for job in jobs)
        columns = longest + rules.max_new_tokens + SLACK
        most = min(self.budget.rows, sum(len(job.seeds) for job in jobs))
        self.memory.halve(
            "sampling",
            self.budget.tokens,
            lambda tokens: max(1, min(most, tokens // columns)),
            why,
            f"one answer of {rules.max_new_tokens} tokens to a prompt of {longest} does not fit: lower "
            "generate.max_new_tokens, leave out the longest prompts, or take a smaller --model",
        )

    def _completion(self, row: Live, sampling: Sampling) -> Completion:
        ids, logprobs = row.token_ids, row.logprobs
        ended = ids[-1] in self.stop_ids
        text = self.decode(ids[:-1] if ended else ids)
        reason: FinishReason = "stop" if ended else "length"
        at = min((p for s in sampling.stop if (p := text.find(s)) >= 0), default=-1)
        if at >= 0:
            text, reason = text[:at], "stop"
            keep = self._tokens_within(ids, text)
            # Where a token straddles the boundary its part before it is encoded anew; such tokens and the
            # end-of-turn were not sampled and have no logprob.
            tail = self.encode_text(text[len(self.decode(ids[:keep])) :])
            ids, logprobs = [*ids[:keep], *tail, self.end_id], logprobs[:keep]
        return Completion(
            request=row.request,
            index=row.index,
            text=text,
            token_ids=tuple(ids),
            logprobs=tuple(logprobs),
            finish_reason=reason,
        )

    def _tokens_within(self, ids: Sequence[int], text: str) -> int:
        """How many leading tokens decode to a beginning of `text`."""
        return max(k for k in range(len(ids) + 1) if text.startswith(self.decode(ids[:k])))

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        *,
        base: bool = False,
    ) -> list[tuple[float, ...]]:
        pairs = list(zip(prompts, completions, strict=True))
        constant = SCORE_TOKENS[self.device]
        while True:
            try:
                return self._score(pairs, self.memory.tokens("scoring", constant), base)
            except (RuntimeError, MemoryError) as error:
                if (why := out_of_memory(error)) is None:
                    raise
            self.memory.halve(
                "scoring",
                constant,
                partial(cut, self.model, pairs),
                why,
                "one prompt with its answer does not fit: leave out the longest, or take a smaller --model",
            )

    def _score(self, pairs: Sequence[Pair], budget: int, base: bool) -> list[tuple[float, ...]]:
        results: list[tuple[float, ...]] = [()] * len(pairs)
        with torch.inference_mode(), self._base() if base else _nothing():
            for micro in cut(self.model, pairs, budget):
                found = completion_logprobs(self.model, [pairs[i] for i in micro])
                for i, row in zip(micro, found, strict=True):
                    results[i] = tuple(row.tolist())
        return results


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class _StopStrings(Watcher):
    """Stops a row whose text so far contains a stop string."""

    def __init__(self, engine: LocalEngine, stop: Sequence[str]) -> None:
        self.engine, self.stop = engine, stop

    def stops(self, row: Live) -> bool:
        # The last few tokens are enough: a stop string ends in the newest one. Bytes, not characters: a
        # byte-level vocabulary may spend several tokens on one character.
        longest = max(len(s.encode()) for s in self.stop)
        tail = self.engine.decode(row.token_ids[-(longest + 8) :])
        return any(s in tail for s in self.stop)


def _refusal(request: int, index: int, why: str) -> Completion:
    return Completion(
        request=request, index=index, text="", token_ids=(), logprobs=(), finish_reason="error", error=why
    )


def _unwrap(wrapped: Any) -> None:
    """Take the LoRA layers out; the base modules were never touched."""
    base = wrapped.unload()
    if hasattr(base, "peft_config"):
        del base.peft_config
    for parameter in base.parameters():
        parameter.requires_grad_(False)


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every eos of the generation config, the tokenizer's, and the template's end-of-turn."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    if configured is None:
        configured = model.config.get_text_config().eos_token_id
    ids = set(configured) if isinstance(configured, list | tuple) else {configured}
    ids |= {tokenizer.eos_token_id, _template_end(tokenizer)}
    stop = frozenset(i for i in ids if i is not None)
    if not stop:
        raise EngineError("the model names no end-of-sequence token, so an answer would never end")
    return stop


def _template_end(tokenizer: Any) -> int | None:
    """The special token the chat template puts right after an assistant's words.

    Special by its own flag: Gemma's and Phi's end-of-turn is not among `all_special_ids`.
    """
    if tokenizer.chat_template is None:
        return None
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "XBOUNDARYX"}]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except Exception:  # noqa: BLE001 - a template may refuse this chat; eos is then all we know
        return None
    after = text.rpartition("XBOUNDARYX")[2]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    added = tokenizer.added_tokens_decoder.get(ids[0]) if ids else None
    return ids[0] if added is not None and added.special else None


def _end_of_turn(tokenizer: Any, stop_ids: frozenset[int]) -> int:
    end = _template_end(tokenizer)
    if end is None:
        end = tokenizer.eos_token_id
    return int(end) if end is not None else min(stop_ids)
