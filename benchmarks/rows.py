"""The comparisons of the table: what is run for each, and against which settings of the peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from benchmarks import sampling, training, work
from benchmarks.compare import Compared, alternate
from benchmarks.context import FLOPS_SAMPLED, FLOPS_TRAINED, Context, Goal
from benchmarks.records import Section
from benchmarks.sampling import Job
from selfrefine.config import TrainConfig
from selfrefine.records import Sample

FIXED = Goal(
    work="64 prompts × 4 samples, 48 tokens each",
    against="`model.generate`, its best batch size",
    at_least=2.4,
    aim_for=3.0,
    share_aim=0.75,
)
STOPPING = Goal(
    work="64 prompts × 8 samples that stop by themselves (chain_sum)",
    against="`model.generate`, its best batch size",
    at_least=3.0,
    aim_for=4.0,
)
ONE_EACH = Goal(
    work="SFT epoch, 1 completion per prompt",
    against="TRL `SFTTrainer`, completion-only loss, same LoRA, same batch tokens",
    at_least=1.6,
    aim_for=2.5,
)
EIGHT_EACH = Goal(
    work="SFT epoch, 8 completions per prompt",
    against="TRL `SFTTrainer`, completion-only loss, same LoRA, same batch tokens",
    at_least=4.0,
    aim_for=6.0,
)
REPEATS = 2
GENERATE_SETTINGS = (
    *(sampling.Setting(rows=rows, cache="dynamic") for rows in (256, 128, 64, 32)),
    sampling.Setting(rows=64, cache="static"),
)
TRAINER_SETTINGS = tuple(training.Setting(rows=rows, padding_free=False) for rows in (4, 8, 2, 16))
"""Of both, the first was the fastest on 2 cores (docs/performance-log.md); --search tries all."""
PROMPTS_OF_AN_EPOCH = {1: 64, 8: 16}
"""By completions per prompt: an epoch of 64 rows and one of 128."""
MAX_NEW_TOKENS = 24
"""The demo's own."""


def sample_fixed(context: Context) -> Section:
    prompts, n, new = (4, 2, 4) if context.quick else (64, 4, 48)
    return _sample(context, FIXED, prompts, Job(n=n, max_new_tokens=new, fixed=True), budget_s=200)


def sample_stopping(context: Context) -> Section:
    prompts, n, new = (4, 2, 4) if context.quick else (64, 8, MAX_NEW_TOKENS)
    return _sample(context, STOPPING, prompts, Job(n=n, max_new_tokens=new, fixed=False), budget_s=110)


def _sample(context: Context, goal: Goal, count: int, job: Job, budget_s: float) -> Section:
    engine = context.engine
    prompts = work.demo_prompts(engine, count)
    context.measure_product()
    short = Job(n=job.n, max_new_tokens=4, fixed=job.fixed)
    sampling.ours(engine, prompts, short, 0)  # the warm-up of our side; the search is that of the other
    plain = sampling.Peer(context.plain, sorted(engine.stop_ids), engine.end_id)
    # Found once, on fixed lengths: what fits the caches does not depend on where answers end.
    best, rates = context.once(
        "generate",
        lambda: sampling.best_setting(plain, prompts, job, _choices(context, GENERATE_SETTINGS), context.say),
    )
    sampling.peer(plain, prompts[:2], short, best, 0)
    runs = iter(range(1, 1000))
    compared = alternate(
        lambda: sampling.ours(engine, prompts, job, next(runs)),
        lambda: sampling.peer(plain, prompts, job, best, next(runs)),
        1 if context.quick else REPEATS,
        budget_s,
        context.say,
    )
    lengths = [len(prompt.ids) for prompt in prompts]
    rows = count * job.n
    notes = (
        f"Prompts of {min(lengths)} to {max(lengths)} tokens, temperature 1, float32.",
        f"`model.generate`: sampling mode, prompts sorted by length, {best}; {_tried(rates)}.",
        f"Tokens per answer: {_mean(compared, rows)[0]:.1f} and {_mean(compared, rows)[1]:.1f}.",
    )
    return context.section((context.throughput_row(goal, compared, FLOPS_SAMPLED, notes),))


S = TypeVar("S")


def _choices(context: Context, settings: Sequence[S]) -> Sequence[S]:
    return settings if context.search else settings[:1]


def _tried(rates: Mapping[str, float]) -> str:
    shown = ", ".join(f"{name}: {rate:.0f} tokens/s" for name, rate in rates.items())
    return f"tried {shown}" if shown else "the fastest in docs/performance-log.md"


def _mean(compared: Compared, rows: int) -> tuple[float, float]:
    ours = sum(run.tokens for run in compared.ours) / len(compared.ours) / rows
    peer = sum(run.tokens for run in compared.peer) / len(compared.peer) / rows
    return ours, peer


def sft_rows(context: Context, n: int) -> list[Sample]:
    """The rows of an epoch: n answers of the model itself to each of a number of demo prompts."""
    return context.once(f"sft-rows-{n}", lambda: _sft_rows(context, n))


def _sft_rows(context: Context, n: int) -> list[Sample]:
    if context.quick:  # may stand on a random model, whose answers hardly ever end by themselves
        made = work.made_up(12, 8 // n, n, 4, context.engine.model.config.vocab_size)
        return work.with_text(context.engine, made)
    prompts = work.demo_prompts(context.engine, PROMPTS_OF_AN_EPOCH[n])
    context.say(f"sampling {n} answers each to {len(prompts)} prompts")
    return work.answers(context.engine, prompts, n, MAX_NEW_TOKENS)


def trainer(context: Context, n: int) -> training.Peer:
    """The peer on the rows of `sft_rows`, in the order of our steps."""

    def make() -> training.Peer:
        rows, settings = sft_rows(context, n), sft_settings(context, n)
        ordered = training.same_steps(context.engine, rows, settings)
        return training.Peer(context.plain, context.engine.tokenizer, ordered, settings)

    return context.once(f"trainer-{n}", make)


def best_cut(context: Context, n: int) -> tuple[training.Setting, dict[str, float]]:
    """The trainer's best rows a forward pass on the rows of `sft_rows`, found once."""

    def make() -> tuple[training.Setting, dict[str, float]]:
        return training.best_setting(trainer(context, n), _choices(context, TRAINER_SETTINGS), context.say)

    return context.once(f"cut-{n}", make)


def sft_settings(context: Context, n: int) -> TrainConfig:
    """Completions a step: 32 prompts, or 8 prompts with all of theirs."""
    return training.with_batch(training.SETTINGS, 8 if context.quick else {1: 32, 8: 64}[n])


def train_one(context: Context) -> Section:
    return _train(context, ONE_EACH, 1, budget_s=90)


def train_eight(context: Context) -> Section:
    return _train(context, EIGHT_EACH, 8, budget_s=120)


def _train(context: Context, goal: Goal, n: int, budget_s: float) -> Section:
    training.quiet()
    engine, rows, settings = context.engine, sft_rows(context, n), sft_settings(context, n)
    context.measure_product()
    warm = training.ours(engine, rows, settings)
    peer, (best, rates) = trainer(context, n), best_cut(context, n)
    agreed = training.first_losses(warm.first_loss, peer.train(best, steps=1).first_loss)
    context.say(agreed)
    compared = alternate(
        lambda: training.ours(engine, rows, settings).timed,
        lambda: peer.train(best).timed,
        1 if context.quick else REPEATS,
        budget_s,
        context.say,
    )
    prompt_tokens = sum(len(row.prompt_token_ids) for row in rows) / len(rows)
    answer_tokens = sum(len(row.token_ids) for row in rows) / len(rows)
    notes = (
        f"{len(rows)} rows: prompts of {prompt_tokens:.0f} tokens, completions of {answer_tokens:.1f} on "
        f"average, {settings.batch_size} completions per step, the same rows in the same steps on both "
        "sides.",
        f"`SFTTrainer`: {best}; {_tried(rates)}; no gradient checkpointing, no evaluation, no logging, no "
        "saving.",
        f"Both sides: {agreed}.",
    )
    return context.section((context.throughput_row(goal, compared, FLOPS_TRAINED, notes),))
