"""Fine-tuning: `steps.finetune` against TRL's `SFTTrainer`, on the same rows in the same order.

Useful tokens are prompt + completion tokens with every row counted by itself, on both sides: what a side
saves by computing a prompt once is its gain, not less work done.

Both sides make the same steps: the rows of each step are those of `plan_steps`, handed to the trainer in that
order. The first loss must therefore be the same number, and is checked.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks.compare import Timed, fastest
from benchmarks.work import SEED, trained_tokens
from selfrefine.config import ObjectiveConfig, TrainConfig
from selfrefine.engines.local import LocalEngine
from selfrefine.records import Sample
from selfrefine.seeds import derive
from selfrefine.steps.finetune import finetune
from selfrefine.steps.training_items import items
from selfrefine.training.plan import plan_steps

SETTINGS = TrainConfig(lr=3e-4, epochs=1, batch_size=64)
"""The demo's learning rate; 64 completions a step. Everything else is the tool's default."""


SFT = ObjectiveConfig(name="sft")


class Setting(Struct, frozen=True, kw_only=True):
    """How `SFTTrainer` cuts a step of 64 rows: rows a forward pass, flattened without padding or padded."""

    rows: int
    padding_free: bool

    def __str__(self) -> str:
        return f"{self.rows} rows per forward pass, {'padding-free' if self.padding_free else 'padded'}"


class Run(Struct, frozen=True, kw_only=True):
    timed: Timed
    first_loss: float | None


def ours(engine: LocalEngine, rows: Sequence[Sample], settings: TrainConfig = SETTINGS) -> Run:
    """A whole `finetune`, adapter attached and taken off again included; the adapter is not written."""
    begun = time.perf_counter()
    trained, _ = finetune(rows, engine.trainer(), settings, SFT, SEED, lambda trained, log, save: None)
    seconds = time.perf_counter() - begun
    timed = Timed(tokens=trained_tokens(rows) * int(settings.epochs), seconds=seconds)
    return Run(timed=timed, first_loss=trained.first_loss)


def same_steps(engine: LocalEngine, rows: Sequence[Sample], settings: TrainConfig) -> list[Sample]:
    """The rows in the order in which `finetune` trains on them; inside a step by length, to save padding."""
    steps = plan_steps(items(rows, engine)[0], settings, derive(SEED, "finetune", 1))
    return [row for step in steps for row in sorted((rows[i] for i in step), key=_length)]


def _length(row: Sample) -> int:
    return len(row.prompt_token_ids) + len(row.token_ids)


class Peer:
    """`SFTTrainer` on copies of one model. Making the dataset and the trainer is not timed, `train()` is."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        rows: Sequence[Sample],
        settings: TrainConfig,
        *,
        copies: bool = True,
    ) -> None:
        """rows: as `same_steps` orders them. Without copies the model can be trained once only."""
        self.model, self.tokenizer, self.rows, self.settings = model, tokenizer, rows, settings
        self.copies = copies

    def train(self, setting: Setting, *, steps: int = -1) -> Run:
        """`steps` optimizer steps (-1: the epoch). With a number of steps the first loss is logged, too."""
        with tempfile.TemporaryDirectory() as scratch:
            trainer = self._trainer(setting, steps, Path(scratch))
            begun = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - begun
        logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        made = self.rows[: steps * self.settings.batch_size] if steps > 0 else self.rows
        timed = Timed(tokens=trained_tokens(made), seconds=seconds)
        return Run(timed=timed, first_loss=logged[0] if logged else None)

    def _trainer(self, setting: Setting, steps: int, scratch: Path) -> Any:
        from datasets import Dataset
        from peft import LoraConfig
        from trl import SFTTrainer

        data = Dataset.from_dict(
            {
                "input_ids": [[*row.prompt_token_ids, *row.token_ids] for row in self.rows],
                "labels": [[-100] * len(row.prompt_token_ids) + list(row.token_ids) for row in self.rows],
            }
        )
        lora = self.settings.lora
        return SFTTrainer(
            # A copy: the trainer replaces methods of the model it is given.
            model=copy.deepcopy(self.model) if self.copies else self.model,
            args=self._arguments(setting, steps, scratch),
            train_dataset=data,
            processing_class=self.tokenizer,
            peft_config=LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
        )

    def _arguments(self, setting: Setting, steps: int, scratch: Path) -> Any:
        from trl import SFTConfig

        own = self.settings
        accumulate, rest = divmod(own.batch_size, setting.rows)
        if rest:
            raise ValueError(f"{setting.rows} rows per forward pass do not divide a step of {own.batch_size}")
        return SFTConfig(
            output_dir=str(scratch),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=setting.rows,
            gradient_accumulation_steps=accumulate,
            padding_free=setting.padding_free,
            max_length=None,
            packing=False,
            train_sampling_strategy="sequential",
            num_train_epochs=own.epochs,
            max_steps=steps,
            learning_rate=own.lr,
            lr_scheduler_type=own.schedule,
            warmup_steps=own.warmup,
            max_grad_norm=own.clip,
            weight_decay=own.weight_decay,
            adam_beta1=0.9,
            adam_beta2=0.999,
            logging_strategy="steps" if steps > 0 else "no",
            logging_steps=1,
            save_strategy="no",
            eval_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=SEED,
            dataloader_pin_memory=False,
        )


def best_setting(
    peer: Peer, settings: Sequence[Setting], say: Callable[[str], None]
) -> tuple[Setting, dict[str, float]]:
    """The fastest way to cut a step, one step each; the smallest of those within 3 %, for its memory."""
    by_name = {str(setting): setting for setting in settings}

    def rate(name: str) -> float:
        found = peer.train(by_name[name], steps=1).timed.rate
        say(f"SFTTrainer, {name}: {found:.0f} tokens/s")
        return found

    best, rates = fastest(list(by_name), rate, within=0.03)
    return by_name[best], rates


def first_losses(ours_first: float | None, peer_first: float | None) -> str:
    """Both numbers in a sentence. Raises: ValueError where they differ by more than rounding."""
    if ours_first is None or peer_first is None:
        raise ValueError("a side that logged no loss cannot be compared")
    if abs(ours_first - peer_first) > 1e-3 * abs(peer_first):
        raise ValueError(f"first losses differ: {ours_first:.6f} and {peer_first:.6f}; not the same job")
    return f"first loss {ours_first:.5f} and {peer_first:.5f}"


def second_step(
    engine: LocalEngine,
    rows: Sequence[Sample],
    start: Callable[[], None],
    stop: Callable[[], None],
) -> None:
    """Two steps over all rows; `start` is called before the second and `stop` after it.

    The first one pays for the optimizer's state and the adapter, which a run of many steps does once.
    """

    def on_step(row: Any, total: int) -> None:
        (start if row.step == 1 else stop)()

    settings = msgspec.structs.replace(SETTINGS, batch_size=len(rows), epochs=2)
    finetune(rows, engine.trainer(), settings, SFT, SEED, lambda trained, log, save: None, on_step=on_step)


def with_batch(settings: TrainConfig, batch_size: int) -> TrainConfig:
    return msgspec.structs.replace(settings, batch_size=batch_size)


def quiet() -> None:
    """What the trainer prints while it trains says nothing here."""
    import logging
    import warnings

    import transformers

    transformers.logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
