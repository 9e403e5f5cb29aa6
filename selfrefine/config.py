"""Every setting of a run. `layers.py` puts them together from recipe, file and flags.

The structs are the schema of the TOML file; `[train] lr = 1e-4` is `--set train.lr=1e-4`. Rewards and
objectives have settings of their own, which their descriptions know: `[reward.numeric]`, `[objective.grpo]`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from selfrefine.fields import (
    BelowOne,
    Natural,
    NonNegative,
    OpenShare,
    Positive,
    PositiveFloat,
    Share,
    says,
)
from selfrefine.judging import CritiqueConfig, RewardConfig
from selfrefine.proposing import ProposeConfig
from selfrefine.serving import EngineConfig
from selfrefine.thresholds import AlarmsConfig, GateConfig, GuardsConfig, ReflectConfig

SplitSize = Natural | BelowOne


class TasksConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where tasks come from and how they are split."""

    source: Annotated[
        str, says("Source of the tasks: a file or `KIND:NAME`. `selfrefine tasks` lists the kinds.")
    ] = ""
    n: Annotated[Positive | None, says("Maximum number of tasks. Generated sources: 500 if not set.")] = None
    template: Annotated[str | None, says("Template of each prompt; `{source}` is the task's text.")] = None
    suffix: Annotated[str, says("Text appended to each prompt.")] = ""
    prompt_field: Annotated[str | None, says("Column that holds the prompt.")] = None
    reference_field: Annotated[str | None, says("Column that holds the reference.")] = None
    settings: Annotated[
        dict[str, str | int | float | bool],
        says(
            "Settings of the source itself, such as `tasks.settings.max_terms=2`. They are ignored when"
            " a later layer, such as a flag, names another source."
        ),
    ] = {}
    train: Annotated[Positive | None, says("Training tasks. Not set: all that gate and test leave.")] = None
    gate: Annotated[SplitSize, says("Held-out tasks that decide on a round: a count or a share.")] = 0.2
    test: Annotated[SplitSize, says("Held-out tasks measured at start and end: a count or a share.")] = 0.2
    gate_file: Annotated[str | None, says("File or source of gate tasks, instead of `tasks.gate`.")] = None
    test_file: Annotated[str | None, says("File or source of test tasks, instead of `tasks.test`.")] = None


Stop = tuple[Annotated[str, Meta(min_length=1)], ...]


class Sampling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an answer is drawn, from the configuration to the decoder (`sampling.draw`). Recorded logprobs are
    those of the policy at temperature 1 whatever these say."""

    temperature: Annotated[NonNegative, says("Sampling temperature; 0 is greedy.")] = 1.0
    top_p: Annotated[
        OpenShare, says("Sample from the most likely tokens that together have this probability; 1 is off.")
    ] = 1.0
    top_k: Annotated[Natural, says("Sample from this many of the most likely tokens; 0 is off.")] = 0
    min_p: Annotated[
        Share, says("Sample from tokens at least this fraction as likely as the most likely one; 0 is off.")
    ] = 0.0
    repetition_penalty: Annotated[
        PositiveFloat,
        says(
            "Penalty on tokens of the prompt and of the answer so far; 1 is off. Positive logits are divided "
            "by it, negative ones multiplied."
        ),
    ] = 1.0
    max_new_tokens: Annotated[
        Positive, says("Maximum tokens per answer. Cut-off answers are learnt by policy gradients only.")
    ] = 128
    stop: Annotated[Stop, says("Texts that end an answer. They are not part of it.")] = ()


By = Literal["majority", "p-true", "critic", "weighted-vote"]
_BY = (
    "What chooses. `majority`: the most frequent final answer, read as the reward `majority` reads it; "
    "`p-true`: the model's own probability that an answer is right; `critic`: the critic's (of "
    "`critique.critic_model`, else the policy), asked by `critique.choice_prompt`; `weighted-vote`: the "
    "final answer with the largest sum of p-true's probabilities."
)


class GenerateConfig(Sampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are sampled for training."""

    n: Annotated[Positive, says("Samples per prompt.")] = 8
    system: Annotated[str | None, says("System message for prompts that have none.")] = None
    best_of: Annotated[
        Natural,
        says(
            "Give one answer, chosen among this many samples by `generate.by`. 0 is off: all `n` samples are "
            "written. Not for runs, where `select` chooses."
        ),
    ] = 0
    by: Annotated[By, says(_BY)] = "majority"


class ResampleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """More prompts for a round whose answers differ too little in reward."""

    groups: Annotated[
        Natural,
        says(
            "Prompts per round whose answers must differ in reward. Further training prompts are "
            "sampled until there are this many; 0 is off."
        ),
    ] = 0
    max_tokens: Annotated[Positive, says("Maximum number of tokens sampled for this per round.")] = 100_000


class RationaliseConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sampling again with the reference in view."""

    n: Annotated[
        Natural,
        says(
            "Samples, with the reference as a hint, for each task that no sample got right. Right means"
            " a reward of at least `select.min_reward`, or 1 if that is not set. Right answers are "
            "learnt without the hint; 0 is off."
        ),
    ] = 0
    prompt: Annotated[
        str, says("Template of the hint: `hint`, `plain-hint` for a small model, or a file.")
    ] = "hint"


class EvaluateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How held-out tasks are answered. Without a measure the trained rewards measure themselves, and the run
    says so."""

    measure: Annotated[
        tuple[str, ...], says("Rewards that measure the held-out tasks. Not set: the trained rewards.")
    ] = ()
    n: Annotated[Positive, says("Samples per held-out task.")] = 1
    best_of: Annotated[
        Natural,
        says(
            "Measure one answer per task, chosen among this many samples by `evaluate.by`. 0 is off. Needs "
            "an `evaluate.temperature` above 0."
        ),
    ] = 0
    by: Annotated[By, says(_BY)] = "majority"
    temperature: Annotated[NonNegative, says("Sampling temperature; 0 is greedy.")] = 0.0
    max_new_tokens: Annotated[
        Positive | None, says("Maximum length of an answer, in tokens. Not set: `generate.max_new_tokens`.")
    ] = None
    stop: Annotated[Stop | None, says("Texts that end an answer. Not set: `generate.stop`.")] = None
    critic: Annotated[
        Literal["source", "model"],
        says(
            "Who criticises in that comparison. `source`: as in training; `model`: the critic by itself, "
            "whatever `critique.source` is, which is what learning `details` is for."
        ),
    ] = "source"
    revise: Annotated[
        Literal["off", "end", "both"],
        says(
            "When to compare drafts, revisions and fresh samples on the test tasks. `end`: at the end; "
            "`both`: also at the start. All are sampled as in training."
        ),
    ] = "off"

    def sampled(self, generate: GenerateConfig) -> GenerateConfig:
        """How held-out tasks are answered beside `generate`: top_p, top_k, min_p and the penalty are off."""
        return GenerateConfig(
            n=self.best_of or self.n,
            best_of=self.best_of,
            by=self.by,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens or generate.max_new_tokens,
            stop=generate.stop if self.stop is None else self.stop,
            system=generate.system,
        )


class SelectConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which answers are learnt from, and as what."""

    strategy: Annotated[
        Literal["best-of-n", "threshold", "all", "pairs", "labels", "groups"],
        says(
            "Which answers are learnt. `best-of-n`: the best answer to each prompt, if it is better "
            "than the worst or, if set, reaches `min_reward`; `threshold`: answers that reach "
            "`min_reward`; `all`: every complete, scored answer; `pairs`: the best against the worst; "
            "`labels`: good and bad answers, each on its own; `groups`: all answers to a prompt if "
            "their rewards differ."
        ),
    ] = "best-of-n"
    min_reward: Annotated[
        Share | None,
        says(
            "Lowest reward to learn from. `threshold`: 1 if not set; `pairs`: applies to the chosen "
            "answer; `labels`: applies to good answers, 0.5 if not set."
        ),
    ] = None
    max_per_prompt: Annotated[
        Positive | None,
        says(
            "Maximum number of answers per prompt. Not set: 1 for `best-of-n`, else all. `labels` and "
            "`learn = verdicts`: this many good and this many bad answers."
        ),
    ] = None
    dedupe: Annotated[
        bool,
        says("Count equal answers to a prompt once. `groups` keeps them all: they are what the policy does."),
    ] = True
    learn: Annotated[
        Literal["answers", "revisions", "critiques", "both", "details", "verdicts"],
        says(
            "What is learnt from scored answers. `answers`: the answers, a revision as the answer to its "
            "draft's prompt; `revisions`: the revising turn, under its own prompt, if the reward rose; "
            "`critiques`: the critique that led to such a revision, under the critic's prompt; `both`: "
            "these two turns; `details`: what the rewards found, under the critic's prompt, so that the "
            "policy finds it by itself (with `critique.source` not `model`; `both` then means these and "
            "the revising turns); `verdicts`: Yes or No to the question of the reward `p-true`, whether an "
            "answer is right (its reward reaches `min_reward`, 1 if not set), as many of each."
        ),
    ] = "answers"
    corrections: Annotated[
        Literal["own", "samples", "near", "broken"],
        says(
            "What a revising turn learns. `own`: its revision, if that is better; `samples`: if it is not, "
            "the best draft of the task that is better; `near`: of all better answers to the task, its "
            "revision among them, the one that has most words in common with the draft; `broken`: so, and "
            "every right answer as the correction of copies of it in which words are missing or swapped or a "
            "number is off, with what the rewards find wrong with those (with `critique.source` not `model`)."
        ),
    ] = "own"
    min_similarity: Annotated[
        Share,
        says(
            "Smallest share of words that draft and correction have in common, in their order. With "
            '`corrections = "near"` or `"broken"`.'
        ),
    ] = 0.0
    candidates: Annotated[Literal["all", "drafts", "revisions"], says("Answers to select from.")] = "all"
    band: Annotated[
        tuple[Share, Share] | None,
        says(
            "Lowest and highest mean reward of a prompt's drafts, such as `[0.2, 0.8]`. Prompts outside"
            " it are left out. With rewards of 0 or 1 the mean is the pass rate."
        ),
    ] = None
    margin: Annotated[Share, says("Smallest difference within a pair. Equal rewards never form one.")] = 0.0
    pairs_per_prompt: Annotated[
        Positive, says("Maximum number of pairs per prompt. The second: second best against second worst.")
    ] = 1
    chosen: Annotated[
        Literal["samples", "references"],
        says(
            "Where the chosen answer of a pair comes from. `references`: the task's reference is chosen"
            " and the policy's own answers are rejected (SPIN)."
        ),
    ] = "samples"


class ObjectiveConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is minimised. settings: by objective; `resolve` keeps those of the chosen one, in full."""

    name: Annotated[str, says("The loss to minimise, by name or `file.py:name`.")] = "sft"
    reference: Annotated[
        Literal["round-0", "accepted", "sampler"],
        says(
            "Policy that `dpo`, `ipo`, `kto` and a `kl` penalty compare with. `round-0`: the starting "
            "policy (the model, with `adapter` if that is set); `accepted`: the accepted policy; "
            "`sampler`: the policy that sampled this round."
        ),
    ] = "round-0"
    settings: Annotated[
        dict[str, dict[str, Any]], says("A table for each objective, such as `objective.grpo.clip_low=0.1`.")
    ] = {}


class LoraConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The adapter that is trained."""

    r: Annotated[Positive, says("Rank of the adapter.")] = 16
    alpha: Annotated[Positive, says("Scale of the update, which is multiplied by alpha / r.")] = 32
    dropout: Annotated[BelowOne, says("Dropout before the adapter.")] = 0.0
    targets: Annotated[
        tuple[str, ...],
        says("Names of the modules to adapt. `all-linear`: every linear layer except the head."),
    ] = ("all-linear",)


class TrainConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an adapter is trained."""

    lr: Annotated[PositiveFloat | None, says("Peak learning rate. Not set: the objective's own.")] = None
    epochs: Annotated[PositiveFloat, says("Passes over the selected answers.")] = 1.0
    steps: Annotated[Natural, says("Number of optimizer steps. 0: as many as `train.epochs` needs.")] = 0
    batch_size: Annotated[Positive, says("Answers per optimizer step.")] = 16
    token_budget: Annotated[
        Natural,
        says(
            "Tokens per forward pass. Changes memory and time, not the result; it is halved, with a "
            "message, when memory runs out. 0: a constant of the device class; on a CPU 240, or twice "
            "the longest prompt with its answer if that is more."
        ),
    ] = 0
    warmup: Annotated[Share, says("Share of the steps in which the learning rate rises to its peak.")] = 0.1
    schedule: Annotated[
        Literal["constant", "linear", "cosine"],
        says("Learning rate after its peak. `linear` and `cosine` fall to 0."),
    ] = "linear"
    clip: Annotated[NonNegative, says("Maximum gradient norm; 0 is off.")] = 1.0
    weight_decay: Annotated[NonNegative, says("Weight decay of AdamW.")] = 0.0
    checkpoint_steps: Annotated[Positive, says("Steps between checkpoints: the most that a crash costs.")] = (
        20
    )
    start: Annotated[
        Literal["base", "adapter"],
        says(
            "What training starts from in each round. `base`: a fresh adapter; `adapter`: the current "
            "one, which is the accepted adapter or an undecided candidate after it."
        ),
    ] = "base"
    replay: Annotated[BelowOne, says("Share of training tokens from selected answers of earlier rounds.")] = (
        0.0
    )
    lora: LoraConfig = LoraConfig()


class ComputeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How numbers are computed, not what is computed."""

    plain: Annotated[
        bool,
        says(
            "Compute without custom kernels, patched forward passes and shared rows. Slower, and needs "
            "more memory. SELFREFINE_PLAIN=1 in the environment does the same."
        ),
    ] = False


class CycleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the loop goes on. rounds, until, max_minutes and max_tokens may change when a run is
    continued; all else is frozen with it."""

    rounds: Annotated[Natural, says("Stop after this many rounds.")] = 3
    prompts_per_round: Annotated[
        Positive, says("Training tasks per round. No task is used again before all were used.")
    ] = 128
    until: Annotated[Share | None, says("Stop when the accepted policy reaches this on the gate tasks.")] = (
        None
    )
    max_minutes: Annotated[
        PositiveFloat | None, says("Start no new round after this process has run for this many minutes.")
    ] = None
    max_tokens: Annotated[
        Positive | None,
        says("Start no new round after this many tokens were sampled for training and trained on."),
    ] = None
    patience: Annotated[Positive, says("Stop after this many rejected rounds in a row.")] = 2


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole run."""

    seed: Annotated[
        Annotated[int, Meta(ge=0, lt=2**53)],
        says("Seed of everything random: splits, samples, LoRA's start, training order."),
    ] = 0
    model: Annotated[
        str,
        says("Model to use: `smollm2` (embedded), a folder, a hub id, `openai:NAME`, or `scripted[:FILE]`."),
    ] = "smollm2"
    adapter: Annotated[str | None, says("LoRA adapter to start with.")] = None
    recipe: Annotated[
        str | None,
        says(
            "The method, by name or file. The configuration file overrides its settings (see "
            "[Recipes](#recipes))."
        ),
    ] = None
    tasks: TasksConfig = TasksConfig()
    propose: ProposeConfig = ProposeConfig()
    generate: GenerateConfig = GenerateConfig()
    resample: ResampleConfig = ResampleConfig()
    rationalise: RationaliseConfig = RationaliseConfig()
    critique: CritiqueConfig = CritiqueConfig()
    reward: RewardConfig = RewardConfig()
    select: SelectConfig = SelectConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cycle: CycleConfig = CycleConfig()
    gate: GateConfig = GateConfig()
    guards: GuardsConfig = GuardsConfig()
    alarms: AlarmsConfig = AlarmsConfig()
    reflect: ReflectConfig = ReflectConfig()
    engine: EngineConfig = EngineConfig()
    compute: ComputeConfig = ComputeConfig()
