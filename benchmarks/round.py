"""One GRPO round, sampling and learning: `generate` + `finetune` against TRL's `GRPOTrainer`.

32 prompts, 8 samples each, at most 24 new tokens, a gradient step per 64 completions: 4 steps. Same prompts,
same reward function, same LoRA and clip range, no KL term. A round is timed as a whole; loading is not.

The reward is graded (how near the last number is to the right one), so that nearly every group has spread and
both sides learn from nearly every completion: our side skips groups whose gradient is zero, the trainer
computes them.

Where the sides differ: we sample all 256 answers with the policy of the round's start; the trainer, as by
default, samples 64 before each step and so is spared a forward pass for old logprobs.
"""

from __future__ import annotations

import copy
import functools
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import training, work
from benchmarks.compare import Compared, Timed
from benchmarks.context import QUICK, Context
from benchmarks.records import Row, Section
from selfrefine.config import GenerateConfig, ObjectiveConfig, TrainConfig
from selfrefine.engines.local import LocalEngine
from selfrefine.records import Sample, Task
from selfrefine.steps.finetune import finetune
from selfrefine.steps.generate import generate

SAMPLES = 8
MAX_NEW_TOKENS = 24
CLIP = 0.2
OBJECTIVE = ObjectiveConfig(name="grpo", settings={"grpo": {"clip_low": CLIP, "clip_high": CLIP}})
ROWS_A_PASS = 8
"""The trainer's per-device batch, the fastest of those that `make bench` tries for its supervised rows."""
SETTINGS = TrainConfig(lr=1e-5, epochs=1, batch_size=64, token_budget=1_024)
"""A token budget near that of 16 of the trainer's rows: a prompt of 54 and up to 24 tokens each."""
_NUMBER = re.compile(r"-?\d+")


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How large a round: prompts, completions a step, and how many times each side makes one."""

    prompts: int
    batch_size: int
    rows_a_pass: int
    new_tokens: int


FULL = Size(prompts=32, batch_size=64, rows_a_pass=ROWS_A_PASS, new_tokens=MAX_NEW_TOKENS)
TINY = Size(prompts=2, batch_size=8, rows_a_pass=4, new_tokens=4)


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What a side did: seconds, optimizer steps, sampled tokens, completions learnt from."""

    seconds: float
    steps: int
    sampled_tokens: int
    learnt: int


def nearness(text: str, reference: str) -> float:
    """1 for the right last number, 1/2 for one that is 10 off, towards 0 further away; 0 without a number."""
    numbers = _NUMBER.findall(text)
    if not numbers:
        return 0.0
    # As floats: a sampled "number" may have hundreds of digits, and no length of it is an error.
    return 1.0 / (1.0 + abs(float(numbers[-1]) - float(reference)) / 10.0)


def grpo_round(context: Context) -> Section:
    training.quiet()
    size = TINY if context.quick else FULL
    engine = context.engine
    tasks = [prompt.task for prompt in work.demo_prompts(engine, size.prompts)]
    context.measure_product()
    for side in (ours, functools.partial(peer, context.plain)):  # warm-up
        side(engine, tasks[:2], msgspec.structs.replace(size, batch_size=16))
    first = ours(engine, tasks, size)
    context.say(f"ours: {first.seconds:.1f} s")
    theirs = peer(context.plain, engine, tasks, size)
    context.say(f"GRPOTrainer: {theirs.seconds:.1f} s")
    second = ours(engine, tasks, size)
    context.say(f"ours again: {second.seconds:.1f} s")
    usual = ours(engine, tasks, size, token_budget=0)
    context.say(f"ours with the default token budget: {usual.seconds:.1f} s")
    context.measure_product()
    # The trainer's round takes minutes and is made once, between two of ours.
    one = Timed(tokens=1, seconds=theirs.seconds)
    compared = Compared(
        ours=tuple(Timed(tokens=1, seconds=run.seconds) for run in (first, second)), peer=(one, one)
    )
    row = Row(
        name=context.name,
        work=f"a GRPO round, {FULL.prompts} prompts × {SAMPLES} samples" + (QUICK if context.quick else ""),
        against="TRL `GRPOTrainer`, same prompts and reward function",
        at_least=5.0,
        aim_for=None,
        ratio=compared.ratio,
        repeats=2,
        runs="two runs of ours, one of the peer",
        ours=f"{(first.seconds + second.seconds) / 2:.1f} s",
        peer=f"{theirs.seconds:.1f} s",
        notes=(
            "Sampling, rewards and training together; our two rounds run before and after the trainer's one.",
            f"Sampled tokens {first.sampled_tokens:,}, {second.sampled_tokens:,} and "
            f"{theirs.sampled_tokens:,} (trainer), completions trained on {first.learnt}, "
            f"{second.learnt} and {theirs.learnt}, steps {first.steps}, {second.steps} and {theirs.steps}.",
            f"`GRPOTrainer`: {size.rows_a_pass} completions per forward pass, {size.batch_size} sampled "
            "before each step (its default: no extra pass for old logprobs), beta 0, no gradient "
            f"checkpointing. Ours: {SETTINGS.token_budget:,} tokens per forward pass. With our default token "
            f"budget, smaller to save memory, our round takes {usual.seconds:.1f} s: "
            f"{theirs.seconds / usual.seconds:.2f}×, one run.",
        ),
    )
    return context.section((row,))


def ours(
    engine: LocalEngine, tasks: Sequence[Task], size: Size, token_budget: int = SETTINGS.token_budget
) -> Round:
    begun = time.perf_counter()
    how = GenerateConfig(n=SAMPLES, max_new_tokens=size.new_tokens, system=None)
    answers = generate(tasks, engine, how, work.SEED, round_index=1)
    scored = [rewarded(row) for row in answers]
    settings = msgspec.structs.replace(SETTINGS, batch_size=size.batch_size, token_budget=token_budget)
    trained, _ = finetune(
        scored, engine.trainer(), settings, OBJECTIVE, work.SEED, lambda trained, log, save: None
    )
    return Round(
        seconds=time.perf_counter() - begun,
        steps=trained.steps,
        sampled_tokens=sum(len(row.token_ids) for row in answers),
        learnt=trained.rows,
    )


def rewarded(row: Sample) -> Sample:
    return msgspec.structs.replace(row, reward=nearness(row.text, row.task.references[0]))


def peer(model: Any, engine: LocalEngine, tasks: Sequence[Task], size: Size) -> Round:
    """One epoch of `GRPOTrainer` over the tasks. Making the trainer is not timed."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import GRPOTrainer

    counted = {"tokens": 0, "completions": 0}

    def reward(completions: Any, reference: Any, completion_ids: Any, **_: Any) -> list[float]:
        counted["tokens"] += sum(map(len, completion_ids))
        counted["completions"] += len(completion_ids)
        texts = [completion[0]["content"] for completion in completions]
        return [nearness(text, right) for text, right in zip(texts, reference, strict=True)]

    data = Dataset.from_dict(
        {
            "prompt": [[{"role": m.role, "content": m.content} for m in task.prompt] for task in tasks],
            "reference": [task.references[0] for task in tasks],
        }
    )
    lora = SETTINGS.lora
    with tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=copy.deepcopy(model),
            reward_funcs=reward,
            args=_arguments(size, Path(scratch)),
            train_dataset=data,
            processing_class=engine.tokenizer,
            peft_config=LoraConfig(
                r=lora.r, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        begun = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begun
    return Round(
        seconds=seconds,
        steps=int(trainer.state.global_step),
        sampled_tokens=counted["tokens"],
        learnt=counted["completions"],
    )


def _arguments(size: Size, scratch: Path) -> Any:
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(scratch),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=size.rows_a_pass,
        gradient_accumulation_steps=size.batch_size // size.rows_a_pass,
        num_generations=SAMPLES,
        max_completion_length=size.new_tokens,
        temperature=1.0,
        beta=0.0,
        epsilon=CLIP,
        num_iterations=1,
        num_train_epochs=1,
        learning_rate=SETTINGS.lr,
        lr_scheduler_type=SETTINGS.schedule,
        warmup_steps=SETTINGS.warmup,
        max_grad_norm=SETTINGS.clip,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=work.SEED,
        dataloader_pin_memory=False,
    )
