"""The step `finetune`: selected answers in, a LoRA adapter out."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec
from msgspec import Struct

from selfrefine.config import LoraConfig, TrainConfig
from selfrefine.engines.base import Engine
from selfrefine.errors import ConfigError, EngineError, NothingToLearnError, TrainingError
from selfrefine.memory import Memory
from selfrefine.records import Sample
from selfrefine.seeds import derive

if TYPE_CHECKING:  # torch is imported when something is trained, not when a step is named
    from selfrefine.training.loop import CheckpointStore


@runtime_checkable
class TrainableEngine(Engine, Protocol):
    """An engine whose weights are at hand."""

    @property
    def memory(self) -> Memory: ...

    def use_adapter(self, folder: Path | None) -> None: ...

    def training(
        self, start: Path | None, settings: LoraConfig, seed: int
    ) -> AbstractContextManager[Any]: ...

    def save_adapter(self, wrapped: Any, folder: Path) -> None: ...


class NoCheckpoints:
    """For a fine-tune outside a run folder: nothing to resume from."""

    def load(self) -> Path | None:
        return None

    def replace(self, build: Callable[[Path], None]) -> None:
        """Keeps nothing."""


class Trained(Struct, frozen=True, kw_only=True):
    """What `finetune` did, for the summary."""

    counts: dict[str, int]
    first_loss: float
    last_loss: float


def trainable(engine: Engine) -> TrainableEngine:
    """Raises: EngineError for an engine that only answers."""
    if not isinstance(engine, TrainableEngine):
        raise EngineError(
            f"{engine.signature.split('|')[0]}: this engine cannot be trained; use --model smollm2"
        )
    return engine


def items(samples: Sequence[Sample], engine: Engine) -> tuple[list[Any], int]:
    """Training items of the rows, and how many texts had been edited and were encoded anew.

    The ids that were sampled are what is trained on; a chat rendered and tokenised again may differ. A text
    that its ids no longer decode to was edited on the way (jq, a person): the text counts.
    """
    from selfrefine.objectives.base import Item

    made, edited = [], 0
    for row in samples:
        completion = row.token_ids
        if not completion or engine.decode(completion) != row.text:
            edited += bool(completion)
            completion = engine.encode_answer(row.text)
        prompt = row.prompt_token_ids or engine.encode_chat(row.messages or row.task.prompt)
        made.append(
            Item(id=row.id, prompt_token_ids=prompt, completion_token_ids=completion, reward=row.reward)
        )
    return made, edited


def finetune(
    samples: Sequence[Sample],
    engine: TrainableEngine,
    config: TrainConfig,
    run_seed: int,
    keep: Callable[[list[bytes], Callable[[Path], None]], object],
    *,
    round_index: int = 1,
    start: Path | None = None,
    checkpoints: CheckpointStore | None = None,
    on_step: Callable[[Any, int], None] | None = None,
    rescue: Callable[[Callable[[Path], None]], object] | None = None,
) -> Trained:
    """Train an adapter and hand `keep` the log (a JSON line a step) and a function that writes the adapter
    into a folder. Afterwards the engine's policy is the bare base.

    `start` is the adapter to continue (None: a fresh one). With a non-finite loss the adapter as it was
    when its loss was last finite goes to `rescue`. Raises: NothingToLearnError, TrainingError.
    """
    from selfrefine.objectives import OBJECTIVES
    from selfrefine.training.loop import train

    if not samples:
        raise NothingToLearnError("there is no row to learn from")
    if config.objective not in OBJECTIVES:
        raise ConfigError(f"train.objective {config.objective!r} is not one of: {', '.join(OBJECTIVES)}")
    made, edited = items(samples, engine)
    seed = derive(run_seed, "finetune", round_index)
    with engine.training(start, config.lora, seed) as wrapped:
        try:
            log = train(
                wrapped,
                made,
                _load(OBJECTIVES[config.objective]),
                config,
                seed,
                checkpoints or NoCheckpoints(),
                on_step or (lambda row, total: None),
                engine.memory,
            )
        except TrainingError:
            if rescue is not None:
                rescue(lambda folder: engine.save_adapter(wrapped, folder))
            raise
        keep([msgspec.json.encode(row) for row in log], lambda folder: engine.save_adapter(wrapped, folder))
    return Trained(
        counts={
            "rows": len(made),
            "edited": edited,
            "steps": len(log),
            "trained_tokens": sum(row.tokens for row in log),
        },
        first_loss=log[0].loss,
        last_loss=log[-1].loss,
    )


def _load(lazy: str) -> Any:
    module, _, name = lazy.partition(":")
    return getattr(importlib.import_module(module), name)
