"""Every setting of a run. `layers.py` puts them together from recipe, file and flags.

The structs are the schema of the TOML file; `[train] lr = 1e-4` is `--set train.lr=1e-4`. Rewards and
objectives have settings of their own, which their descriptions know: `[reward.numeric]`, `[objective.grpo]`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from selfrefine.fields import says

Positive = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
OpenShare = Annotated[float, Meta(gt=0.0, le=1.0)]
BelowOne = Annotated[float, Meta(ge=0.0, lt=1.0)]
PositiveFloat = Annotated[float, Meta(gt=0.0)]
NonNegative = Annotated[float, Meta(ge=0.0)]
Factor = Annotated[float, Meta(ge=1.0)]
SplitSize = Natural | BelowOne


class TasksConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where tasks come from and how they are split."""

    source: Annotated[str, says("A file or `KIND:NAME`. `selfrefine tasks` lists the kinds.")] = ""
    n: Annotated[
        Positive | None,
        says("Tasks to read at most. Generated sources make exactly this many, 500 if not set."),
    ] = None
    template: Annotated[str | None, says("Text around each prompt, which stands at `{source}`.")] = None
    suffix: Annotated[str, says("Text appended to each prompt.")] = ""
    prompt_field: Annotated[str | None, says("Column that holds the prompt.")] = None
    reference_field: Annotated[str | None, says("Column that holds the reference.")] = None
    settings: Annotated[
        dict[str, str | int | float | bool],
        says("Settings of the source itself, such as `tasks.settings.max_terms=2`."),
    ] = {}
    train: Annotated[Positive | None, says("Training tasks. Not set: all that gate and test leave.")] = None
    gate: Annotated[SplitSize, says("Held-out tasks that decide after each round: a count or a share.")] = 0.2
    test: Annotated[
        SplitSize, says("Held-out tasks measured at the start and the end: a count or a share.")
    ] = 0.2
    gate_file: Annotated[str | None, says("File or source of gate tasks, instead of `tasks.gate`.")] = None
    test_file: Annotated[str | None, says("File or source of test tasks, instead of `tasks.test`.")] = None


Stop = tuple[Annotated[str, Meta(min_length=1)], ...]


class Sampling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an answer is drawn, from the configuration to the decoder (`sampling.draw`). Recorded logprobs are
    those of the policy at temperature 1 whatever these say."""

    temperature: Annotated[NonNegative, says("Divisor of the logits; 0 is greedy.")] = 1.0
    top_p: Annotated[
        OpenShare,
        says("Nucleus sampling: draw from the likeliest tokens that make up this probability; 1 is off."),
    ] = 1.0
    top_k: Annotated[Natural, says("Draw from this many of the likeliest tokens; 0 is off.")] = 0
    min_p: Annotated[
        Share, says("Draw from tokens at least this times as likely as the likeliest; 0 is off.")
    ] = 0.0
    repetition_penalty: Annotated[
        PositiveFloat,
        says(
            "Penalty on tokens of the prompt and of the answer so far; 1 is off. Positive logits are divided "
            "by it, negative ones multiplied."
        ),
    ] = 1.0
    max_new_tokens: Annotated[
        Positive, says("Longest answer, in tokens. What is cut off here is learnt by policy gradients only.")
    ] = 128
    stop: Annotated[Stop, says("Texts before which an answer ends.")] = ()


class GenerateConfig(Sampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are sampled for training."""

    n: Annotated[Positive, says("Samples per prompt.")] = 8
    system: Annotated[str | None, says("System message for prompts that have none.")] = None


class ResampleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """More prompts for a round whose answers differ too little in reward."""

    groups: Annotated[
        Natural,
        says(
            "Prompts with answers of different reward that a round needs. More training prompts are "
            "sampled until there are as many; 0 is off."
        ),
    ] = 0
    max_tokens: Annotated[Positive, says("Tokens to sample for this in a round, at most.")] = 100_000


class RationaliseConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sampling again with the reference in view."""

    n: Annotated[
        Natural,
        says(
            "Samples, with the reference as a hint, of each task that no sample got right. Right means "
            "a reward of `select.min_reward`, or 1 if that is not set. Right ones are learnt without "
            "the hint; 0 is off."
        ),
    ] = 0
    prompt: Annotated[str, says("Template that gives the hint: `hint`, or a file.")] = "hint"


class EvaluateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How held-out tasks are answered. Without a measure the trained rewards measure themselves, and the run
    says so."""

    measure: Annotated[
        tuple[str, ...], says("Rewards that measure the held-out tasks. Not set: the trained ones do.")
    ] = ()
    n: Annotated[Positive, says("Samples per held-out task.")] = 1
    temperature: Annotated[NonNegative, says("Divisor of the logits; 0 is greedy.")] = 0.0
    max_new_tokens: Annotated[
        Positive | None, says("Longest answer, in tokens. Not set: `generate.max_new_tokens`.")
    ] = None
    stop: Annotated[Stop | None, says("Texts before which an answer ends. Not set: `generate.stop`.")] = None
    revise: Annotated[
        Literal["off", "end", "both"],
        says(
            "When drafts, revisions and fresh samples of the test tasks are compared. `end`: at the "
            "end; `both`: at the start too. All are drawn as in training."
        ),
    ] = "off"

    def sampled(self, generate: GenerateConfig) -> GenerateConfig:
        """How held-out tasks are answered beside `generate`: top_p, top_k, min_p and the penalty are off."""
        return GenerateConfig(
            n=self.n,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens or generate.max_new_tokens,
            stop=generate.stop if self.stop is None else self.stop,
            system=generate.system,
        )


class CritiqueConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are criticised and revised."""

    passes: Annotated[Natural, says("Critiques and revisions per answer, at most. 0: none in `cycle`.")] = 0
    critic_model: Annotated[str | None, says("Model that criticises. Not set: the policy itself.")] = None
    revise: Annotated[bool, says("Revise answers. `false`: only judge them, for the reward `critic`.")] = True
    critique_prompt: Annotated[
        str,
        says(
            "Template of a critique: `critique`, `rubric`, `reflect`, `constitutional-critique`, or a file."
        ),
    ] = "critique"
    revise_prompt: Annotated[
        str, says("Template of a revision: `revise`, `retry`, `constitutional-revise`, or a file.")
    ] = "revise"
    principles: Annotated[
        str | None,
        says(
            "Principles to judge by: `principles`, or a text file with one per line. Each draft and "
            "pass is given one of them."
        ),
    ] = None
    feedback: Annotated[
        Literal["none", "rewards"],
        says("What the critic is told beside the answer. `rewards`: what each reward found missing."),
    ] = "none"
    reveal_references: Annotated[bool, says("Show the critic the references. The rows say so.")] = False
    control: Annotated[bool, says("Compare revisions with fresh samples. `evaluate.revise` always does.")] = (
        True
    )
    max_new_tokens: Annotated[Positive, says("Longest critique, in tokens.")] = 128
    temperature: Annotated[
        NonNegative, says("Sampling temperature of critiques. Revisions are drawn as `generate` says.")
    ] = 1.0


class RewardConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is trained on."""

    use: Annotated[
        tuple[str, ...],
        says(
            "Rewards to train on, each `NAME[:weight]` or `file.py:function[:weight]`. The reward of an "
            "answer is their weighted mean. Not set: those of `evaluate.measure`."
        ),
    ] = ()
    gate_on: Annotated[
        str | None,
        says(
            "One of the rewards that must pass before the others count. Where it does not pass, the "
            "reward is 0, in training and in measuring."
        ),
    ] = None
    invert: Annotated[bool, says("Train on 1 - reward: the control of the recipe `sabotage`.")] = False
    timeout_s: Annotated[
        PositiveFloat | None,
        says(
            "Time limit in seconds for one call of a reward of your own or of a plugin. A call scores one "
            "row, or a prompt's rows for a group reward; beyond the limit these are unscored. Without "
            "`isolate` it cannot interrupt a C function that never returns to Python."
        ),
    ] = None
    isolate: Annotated[
        bool,
        says(
            "Run rewards of your own and of plugins in a separate process. A crash there leaves the rows of "
            "one call unscored, and the run goes on."
        ),
    ] = False
    isolate_memory_gib: Annotated[
        PositiveFloat,
        says(
            "With `isolate`: address space of that process in GiB. Beyond it the row is unscored "
            "(MemoryError). A reward that loads torch needs more than the default."
        ),
    ] = 4.0
    isolate_cpu_s: Annotated[PositiveFloat, says("With `isolate`: CPU time of one call, in seconds.")] = 60.0
    settings: Annotated[
        dict[str, dict[str, Any]],
        says("A table for each reward, such as `reward.numeric.tolerance=0.01`."),
    ] = {}


class SelectConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which answers are learnt from, and as what."""

    strategy: Annotated[
        Literal["best-of-n", "threshold", "all", "pairs", "labels", "groups"],
        says(
            "Which answers are learnt. `best-of-n`: the best of each prompt, if better than its worst "
            "or, where set, at least `min_reward`; `threshold`: those of at least `min_reward`; "
            "`pairs`: the best against the worst; `labels`: good and bad ones, each by itself; "
            "`groups`: all answers to a prompt whose rewards differ."
        ),
    ] = "best-of-n"
    min_reward: Annotated[
        Share | None,
        says(
            "Lowest reward to learn from. `threshold`: 1 if not set; `pairs`: that of the chosen side; "
            "`labels`: that of a good answer, 0.5 if not set."
        ),
    ] = None
    max_per_prompt: Annotated[
        Positive | None,
        says(
            "Answers kept per prompt, at most. Not set: 1 for `best-of-n`, else all. `labels`: so many "
            "good ones and so many bad ones."
        ),
    ] = None
    dedupe: Annotated[
        bool, says("Count equal answers to a prompt once. `groups` keeps all: they are what the policy does.")
    ] = True
    learn: Annotated[
        Literal["answers", "revisions", "critiques", "both"],
        says(
            "What is learnt from revised answers. `answers`: the revision, as the answer to its draft's "
            "prompt; `revisions`: the revising turn, under its own prompt, where the reward rose; "
            "`critiques`: the critique that led to such a revision, under the critic's prompt; `both`: "
            "these two turns."
        ),
    ] = "answers"
    corrections: Annotated[
        Literal["own", "samples"],
        says(
            "What a revising turn learns when its revision is no better. `own`: nothing; `samples`: the "
            "best draft of the task, where that is better than the draft that was revised."
        ),
    ] = "own"
    candidates: Annotated[
        Literal["all", "drafts", "revisions"], says("Which answers are considered for selection.")
    ] = "all"
    band: Annotated[
        tuple[Share, Share] | None,
        says(
            "Lowest and highest mean reward of a prompt's drafts, such as `[0.2, 0.8]`. Other prompts "
            "are left out. For rewards of 0 or 1 the mean is the pass rate."
        ),
    ] = None
    margin: Annotated[Share, says("Smallest difference of reward in a pair. Equal rewards make none.")] = 0.0
    pairs_per_prompt: Annotated[
        Positive, says("Pairs per prompt, at most. The second is second best against second worst.")
    ] = 1
    chosen: Annotated[
        Literal["samples", "references"],
        says(
            "Where the chosen side of a pair comes from. `references`: the task's reference, and the "
            "policy's own answers are rejected (SPIN)."
        ),
    ] = "samples"


class ObjectiveConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is minimised. settings: by objective; `resolve` keeps those of the chosen one, in full."""

    name: Annotated[str, says("The loss that training minimises, by name or `file.py:name`.")] = "sft"
    reference: Annotated[
        Literal["round-0", "accepted", "sampler"],
        says(
            "Policy that `dpo`, `ipo`, `kto` and a penalty `kl` compare with. `round-0`: the starting "
            "policy (the model, with `adapter` if that is set); `accepted`: the accepted one; "
            "`sampler`: the one that answered in this round."
        ),
    ] = "round-0"
    settings: Annotated[
        dict[str, dict[str, Any]], says("A table for each objective, such as `objective.grpo.clip_low=0.1`.")
    ] = {}


class LoraConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The adapter that is trained."""

    r: Annotated[Positive, says("Rank of the adapter.")] = 16
    alpha: Annotated[Positive, says("Scale of the update, which is multiplied by alpha / r.")] = 32
    dropout: Annotated[BelowOne, says("Dropout in front of the adapter.")] = 0.0
    targets: Annotated[
        tuple[str, ...], says("Names of the adapted modules. `all-linear`: every linear layer but the head.")
    ] = ("all-linear",)


class TrainConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an adapter is trained."""

    lr: Annotated[PositiveFloat | None, says("Peak learning rate. Not set: the objective's own.")] = None
    epochs: Annotated[PositiveFloat, says("Passes over the selected answers.")] = 1.0
    steps: Annotated[Natural, says("Optimizer steps. 0: as many as `train.epochs` takes.")] = 0
    batch_size: Annotated[Positive, says("Answers per optimizer step.")] = 16
    token_budget: Annotated[
        Natural,
        says(
            "Tokens computed at once. They change memory and time, not the result, and are halved, with "
            "a message, when memory runs out. 0: a constant of the device class; on a CPU 240, or twice "
            "the longest prompt with its answer if that is more."
        ),
    ] = 0
    warmup: Annotated[Share, says("Share of the steps before the peak learning rate is reached.")] = 0.1
    schedule: Annotated[
        Literal["constant", "linear", "cosine"],
        says("Course of the learning rate after its peak. `linear` and `cosine` fall to 0."),
    ] = "linear"
    clip: Annotated[NonNegative, says("Largest gradient norm; 0 is off.")] = 1.0
    weight_decay: Annotated[NonNegative, says("Weight decay of AdamW.")] = 0.0
    checkpoint_steps: Annotated[Positive, says("Steps between checkpoints. A crash costs no more.")] = 20
    start: Annotated[
        Literal["base", "adapter"],
        says(
            "What training starts from in each round. `base`: a fresh adapter; `adapter`: the current "
            "one, which is the accepted one or an undecided candidate after it."
        ),
    ] = "base"
    replay: Annotated[
        BelowOne, says("Share of the training tokens that come from selected answers of earlier rounds.")
    ] = 0.0
    lora: LoraConfig = LoraConfig()


class ComputeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How numbers are computed, not what is computed."""

    plain: Annotated[
        bool,
        says(
            "Compute without own kernels, patched forwards and shared rows. Slower, and takes more memory; "
            "SELFREFINE_PLAIN=1 in the environment turns it on, too."
        ),
    ] = False


class CycleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the loop goes on. rounds, until, max_minutes and max_tokens may change when a run is
    continued; all else is frozen with it."""

    rounds: Annotated[Natural, says("Stop after this many rounds.")] = 3
    prompts_per_round: Annotated[
        Positive, says("Training tasks per round. None comes again before all were used.")
    ] = 128
    until: Annotated[
        Share | None, says("Stop when the accepted policy has reached this mean reward on the gate tasks.")
    ] = None
    max_minutes: Annotated[
        PositiveFloat | None, says("Begin no round after this many minutes of this process.")
    ] = None
    max_tokens: Annotated[
        Positive | None,
        says("Begin no round after this many tokens, sampled and trained. Measuring is not counted."),
    ] = None
    patience: Annotated[Positive, says("Stop after this many rejected rounds in a row.")] = 2


class GateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate must show on the gate tasks."""

    mode: Annotated[
        Literal["strict", "significant", "off"],
        says("What a candidate must show to be kept. `off`: nothing."),
    ] = "significant"
    alpha: Annotated[
        Annotated[float, Meta(gt=0.0, lt=0.5)],
        says("Chance that a run keeps a round although nothing got better. The rounds share it."),
    ] = 0.05
    wear: Annotated[Share, says("Warn if repeated looks at gate tasks may flatter a policy this much.")] = 0.2


class GuardsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is watched beside the main measure. All warn; forgetting, perplexity and gold also veto. A share
    of 1 and a high factor turn a guard off."""

    probe: Annotated[
        bool,
        says(
            "Score 24 general texts and a few answers of each earlier round, after every round. Costs a "
            "second or two."
        ),
    ] = True
    gold: Annotated[
        str | None,
        says(
            "Reward that is never trained on, such as `exact`. It is measured on the gate tasks beside "
            "the main one."
        ),
    ] = None
    forgetting_warn: Annotated[
        Share, says("Warn if accuracy on the general texts, or the mean on a task source, falls this much.")
    ] = 0.1
    forgetting_veto: Annotated[
        Share,
        says("Roll back if accuracy on the general texts, or the mean on a task source, falls this much."),
    ] = 0.25
    perplexity_warn: Annotated[
        Factor,
        says(
            "Warn if perplexity of the general texts, or of an earlier round's answers, grows by this factor."
        ),
    ] = 1.5
    perplexity_veto: Annotated[
        Factor, says("Roll back if perplexity of the general texts grows by this factor.")
    ] = 4.0
    gold_warn: Annotated[Share, says("Warn if the gold reward falls this much.")] = 0.02
    gold_veto: Annotated[
        Share, says("Roll back if the gold reward falls this much and its whole interval lies below zero.")
    ] = 0.1
    distinct_warn: Annotated[Share, says("Warn if this share of a prompt's different answers is gone.")] = 0.5
    entropy_warn: Annotated[Share, says("Warn if this share of the nats per sampled token is gone.")] = 0.8
    length_warn: Annotated[Factor, says("Warn if answers are longer or shorter by this factor.")] = 2.0
    repetition_warn: Annotated[Share, says("Warn if the share of repeated 3-grams rises this much.")] = 0.1
    truncation_warn: Annotated[Share, says("Warn if the share of answers cut off rises this much.")] = 0.1
    correlation_warn: Annotated[
        Share, says("Warn if reward and length have this rank correlation or more, either way.")
    ] = 0.5


class AlarmsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Thresholds beyond which a stage says that something is going wrong. Nothing is stopped."""

    entropy: Annotated[NonNegative, says("Rings below this entropy, in nats per token.")] = 0.01
    kl: Annotated[
        NonNegative,
        says(
            "Rings above this many nats per token from the reference policy. Policy gradients with "
            "`kl` 0: from the sampling policy."
        ),
    ] = 2.0
    clip_share: Annotated[Share, says("Rings when this share of the tokens is clipped.")] = 0.8
    grad_norm: Annotated[NonNegative, says("Rings above this gradient norm, before clipping.")] = 10.0
    no_spread: Annotated[Share, says("Rings when in this share of prompts all rewards are equal.")] = 0.95
    truncated: Annotated[Share, says("Rings when this share of the answers is cut off.")] = 0.5
    unparsed: Annotated[Share, says("Rings when this share of the critiques has no readable verdict.")] = 0.5


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole run."""

    seed: Annotated[
        Annotated[int, Meta(ge=0, lt=2**53)],
        says("Where everything random comes from: splits, samples, LoRA's start, training order."),
    ] = 0
    model: Annotated[
        str, says("The embedded model `smollm2`, a folder, a hub id, or `scripted[:rules.jsonl]`.")
    ] = "smollm2"
    adapter: Annotated[str | None, says("LoRA adapter that the model starts with.")] = None
    recipe: Annotated[
        str | None,
        says(
            "The method, by name or file. Its settings give way to the configuration file's (see "
            "[Recipes](#recipes))."
        ),
    ] = None
    tasks: TasksConfig = TasksConfig()
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
    compute: ComputeConfig = ComputeConfig()
