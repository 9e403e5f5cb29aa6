"""A base model in this process, at most one adapter on top of it, and the trainer that shares it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from selfrefine.compute import adapter_files, products
from selfrefine.config import LoraConfig
from selfrefine.engines.base import Identity, Place, Tokeniser
from selfrefine.errors import EngineError
from selfrefine.memory import Memory

if TYPE_CHECKING:
    from selfrefine.compute import lora


class Weights:
    """The model, and which policy it computes as. The base's weights stay bit-identical."""

    def __init__(
        self,
        model: Any,
        identity: Identity,
        place: Place | None = None,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.model, self.identity, self.place, self._say = model, identity, place, say
        self._said = set[str]()
        # As after a training: weights that want gradients take other kernels, in inference mode too, and a
        # resumed process would sample logprobs that are off by a bit from one that went through.
        model.eval().requires_grad_(False)
        products.install(model)
        self._merge: lora.Merge | None = None
        self._peft: Any = None
        self._adapter_sha256 = ""

    @property
    def merged(self) -> bool:
        """False while an adapter computes beside the weights."""
        return self._peft is None

    @property
    def context_tokens(self) -> int:
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 2**31)

    @property
    def policy(self) -> str:
        return adapter_files.policy(self.identity.weights_sha256, self._adapter_sha256)

    def use(self, folder: Path | None) -> None:
        """Compute as base + the adapter in `folder`, or as the bare base. Raises: ConfigError."""
        self.drop()
        if folder is None:
            return
        from selfrefine.compute import lora  # with it comes peft, which a bare model does without

        wrapped = lora.attach(self.model, folder, self.identity.weights_sha256, trainable=False)
        if self.model.dtype == torch.float32:
            self._merge = lora.Merge(self.model, lora.deltas(wrapped))
            _unwrap(wrapped)
        else:
            # Merging in bf16 rounds the adapter away (logprobs off by up to 0.31): sample through it.
            self._peft = wrapped
        self.model.eval()
        self._adapter_sha256 = adapter_files.adapter_sha256(folder)
        self.say_unchecked(folder)

    def say_unchecked(self, folder: Path) -> None:
        if (line := adapter_files.unchecked(folder)) and line not in self._said:
            self._said.add(line)
            self._say(line)

    def drop(self) -> None:
        """Compute as the bare base."""
        if self._merge is not None:
            self._merge.undo()
            self._merge = None
        if self._peft is not None:
            _unwrap(self._peft)
            self._peft = None
        self._adapter_sha256 = ""

    @contextmanager
    def bare(self) -> Iterator[None]:
        """Inside, the model computes without its adapter."""
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

    def save_merged(self, folder: Path, dtype: str | None = None) -> None:
        """Write base + adapter as a plain model, rounded to `dtype` once merged.

        Raises: EngineError where the base is not float32, or a weight is too large for `dtype`.
        """
        if self._peft is not None:
            dtype = str(self.model.dtype).removeprefix("torch.")
            raise EngineError(
                f"merging into {dtype} would round the adapter away; merge on a CPU, in float32"
            )
        self.model.save_pretrained(folder, state_dict=self._rounded(dtype) if dtype else None)
        if dtype:
            file = folder / "config.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {"dtype": dtype}, indent=2) + "\n")
        readable(folder)

    def _rounded(self, dtype: str) -> dict[str, torch.Tensor]:
        """The model's tensors in another precision. Tied ones stay one: they are saved once."""
        made: dict[int, torch.Tensor] = {}
        state = self.model.state_dict()
        for name, tensor in state.items():
            if tensor.is_floating_point() and tensor.data_ptr() not in made:
                made[tensor.data_ptr()] = tensor.to(getattr(torch, dtype))
                if not made[tensor.data_ptr()].isfinite().all():
                    raise EngineError(f"{name} has values too large for {dtype}; use --dtype bfloat16")
        return {name: made.get(tensor.data_ptr(), tensor) for name, tensor in state.items()}


def readable(folder: Path) -> None:
    """Give files the permissions that the umask gave their folder: safetensors writes them as 0600."""
    for file in folder.iterdir():
        file.chmod(folder.stat().st_mode & 0o666)


class LocalTrainer:
    """Trains adapters on `weights`. Implements engines.base.Trainer."""

    def __init__(self, weights: Weights, tokeniser: Tokeniser, memory: Memory) -> None:
        self.weights, self.tokeniser, self.memory = weights, tokeniser, memory

    @property
    def context_tokens(self) -> int:
        return self.weights.context_tokens

    @property
    def exact_logprobs(self) -> bool:
        return bool(self.weights.model.dtype == torch.float32)

    @contextmanager
    def open(self, start: Path | None, settings: LoraConfig, seed: int) -> Iterator[Any]:
        from selfrefine.compute import lora

        own = self.weights
        own.drop()
        if start is None:
            wrapped = lora.attach_new(own.model, settings, seed)
        else:
            wrapped = lora.attach(own.model, start, own.identity.weights_sha256, trainable=True)
            own.say_unchecked(start)
        try:
            yield wrapped
        finally:
            _unwrap(wrapped)
            own.model.eval()

    def as_policy(self, opened: Any, folder: Path | None) -> AbstractContextManager[None]:
        from selfrefine.compute import lora

        return lora.as_policy(opened, folder, self.weights.identity.weights_sha256)

    def save(self, opened: Any, folder: Path) -> None:
        from selfrefine.compute import lora

        own = self.weights
        lora.save(opened, folder, own.identity.name, own.identity.weights_sha256, own.place)


def _unwrap(wrapped: Any) -> None:
    """Take the LoRA layers out; the base modules were never touched."""
    base = wrapped.unload()
    if hasattr(base, "peft_config"):
        del base.peft_config
    for parameter in base.parameters():
        parameter.requires_grad_(False)
