"""Every setting of a run: default < recipe < config file < flag, unknown keys refused, the nearest named.

The structs are the schema of the TOML file; `[train] lr = 1e-4` is `--set train.lr=1e-4`. Rewards and
objectives have settings of their own, which their descriptions know: `[reward.numeric]`, `[objective.grpo]`.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from selfrefine.errors import ConfigError
from selfrefine.fields import Setting, says, settings_of
from selfrefine.registry import registry, split
from selfrefine.words import near, nearest

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
    settings: Annotated[
        dict[str, dict[str, Any]],
        says("A table for each reward, such as `reward.settings.numeric.tolerance=0.01`."),
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
            "Policy that `dpo`, `ipo`, `kto` and `objective.kl` compare with. `round-0`: the starting "
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
            "`objective.kl` 0: from the sampling policy."
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


class Settings(Struct, frozen=True):
    """A resolved configuration, and by dotted key who decided: `default`, `recipe`, `file`, `run`, `flag`."""

    config: Config
    origins: dict[str, str]


def resolve(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Settings:
    """Later layers win; each is (origin, nested or dotted table). Raises: ConfigError naming the key."""
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(keys(), "default")
    flat = [(origin, key, value) for origin, table in layers for key, value in flatten(table).items()]
    # A short key, `objective.beta`, is about the objective that is chosen in the end.
    objective = next((value for _, key, value in reversed(flat) if key == "objective.name"), "sft")
    if isinstance(objective, str) and objective not in (known := registry("objective")):
        raise ConfigError(f"setting objective.name: no objective {objective!r}{nearest(objective, known)}")
    for origin, given, value in flat:
        check_key(given, origin)
        key = _in_full(given, objective, origin, value)
        if key is not None:
            _put(merged, key, value)
            origins[key] = origin
    try:
        config = msgspec.convert(merged, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(_refusal(error, keys())) from None
    return Settings(_with_objective(config, origins), origins)


def _refusal(error: msgspec.ValidationError, known: Mapping[str, Setting], table: str = "") -> str:
    """msgspec's message with the key first, and the choices where only some words are allowed."""
    message, _, path = str(error).partition(" - at `$")
    key, message = (
        table + path.rstrip("`").removeprefix("" if table else "."),
        message[0].lower() + message[1:],
    )
    choices = known[key].choices if key in known else ()
    given = message.removeprefix("invalid enum value ").strip("'")
    message = message.replace("invalid enum value", "no such choice")
    return f"setting {key or '?'}: {message}{nearest(given, choices) if choices else ''}"


def stored(table: Mapping[str, Any]) -> Config:
    """The configuration in a manifest, of an earlier version's too. Raises: ConfigError."""
    return resolve([("run", table)]).config


def objective_settings(config: ObjectiveConfig) -> Any:
    """The chosen objective's settings as its own struct. Raises: ConfigError naming the key."""
    kind = registry("objective").get(config.name)
    return _converted(f"objective.{config.name}", config.settings.get(config.name, {}), kind.settings)


def _converted(where: str, table: Mapping[str, Any], struct: type[Struct]) -> Any:
    try:
        return msgspec.convert(table, struct, strict=True)
    except msgspec.ValidationError as error:
        known = {setting.key: setting for setting in settings_of(struct, f"{where}.")}
        raise ConfigError(_refusal(error, known, where)) from None


def _with_objective(config: Config, origins: Mapping[str, str]) -> Config:
    """With what the objective decides filled in, so that a manifest says it: all its settings, its rate.

    A flag that it never reads is an error: whoever typed it believes that it acts. In a file such settings
    may stand: the same file is run with several objectives.
    """
    own, kind = config.objective, registry("objective").get(config.objective.name)
    settings = objective_settings(own)
    unread = dict(kind.unread(settings))
    if not kind.needs_reference:
        unread["reference"] = f"{own.name} does not read it"
    for key, why in unread.items():
        if "flag" in (origins.get(f"objective.{key}"), origins.get(f"objective.{own.name}.{key}")):
            raise ConfigError(f"--set objective.{key}: {why}")
    table = msgspec.to_builtins(settings)
    return msgspec.structs.replace(
        config,
        objective=msgspec.structs.replace(own, settings={own.name: table} if table else {}),
        train=msgspec.structs.replace(config.train, lr=config.train.lr or kind.learning_rate),
    )


def _in_full(key: str, objective: object, origin: str, value: object) -> str | None:
    """`objective.beta` as `objective.dpo.beta`; None for what the chosen objective has no use for."""
    if not key.startswith("objective.") or key in keys():
        return key
    first, _, setting = split(key.removeprefix("objective."), ".")
    if setting:
        if origin == "flag" and first != objective:
            raise ConfigError(f"--set {key}: the objective is {objective}")
        return key if first == objective else None
    readers = _readers(first)
    if objective in readers:
        return f"objective.{objective}.{first}"
    if origin == "flag":
        raise ConfigError(f"--set {key}: {objective} does not read it, only {', '.join(readers)}")
    _converted("objective", {first: value}, registry("objective").get(readers[0]).settings)
    return None


def _readers(setting: str) -> list[str]:
    """The objectives with a setting of that name; plugins are asked only for what no built-in one has."""
    found = registry("objective")
    for names in (found.built_in, found):
        readers = [name for name in names if setting in found.get(name).settings.__struct_fields__]
        if readers:
            return readers
    return []


def read_toml(path: Path) -> dict[str, Any]:
    """A config file as a nested table. Raises: ConfigError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_set(text: str) -> tuple[str, Any]:
    """`train.lr=1e-4` to its key and value; a value that is not TOML is a string. Raises: ConfigError."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: write KEY=VALUE, such as --set train.lr=1e-4")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables to dotted keys. `reward.settings.NAME.KEY` is an older spelling of `reward.NAME.KEY`;
    what stands under `tasks.settings` stays one value."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        dotted = _OLDER.sub(r"\1", f"{prefix}{key}")
        if isinstance(value, Mapping) and dotted != "tasks.settings" and not _own_key(dotted)[2]:
            flat |= flatten(value, f"{dotted}.")
        else:
            flat[dotted] = value
    return flat


_OLDER = re.compile(r"^(reward|objective)\.settings(?=\.|$)")


def _own_key(dotted: str) -> tuple[str, str, str]:
    """`reward.numeric.tolerance` to ("reward", "numeric", "tolerance"); the rest empty for other keys."""
    table, _, rest = dotted.partition(".")
    if table not in ("reward", "objective") or dotted in keys():
        return dotted, "", ""
    name, _, key = split(rest, ".")
    return table, name, key


@functools.cache  # asked for each key that is checked, and taking annotations apart is slow
def keys() -> Mapping[str, Setting]:
    """Every dotted key, in the order of the structs, with what its definition says of it."""
    return {setting.key: setting for setting in settings_of(Config)}


def describe(key: str) -> Setting:
    """What the definition of a setting says of it. Raises: KeyError."""
    return keys()[key]


def check_key(dotted: str, origin: str) -> None:
    """Raises: ConfigError for a key that does not exist, naming the nearest one that does.

    A reward's own settings are looked at when rewards are built: that may load a plugin.
    """
    known = list(keys())
    table, name, key = _own_key(dotted)
    if dotted in known or dotted.startswith("tasks.settings."):
        return
    if key and name in registry(table):
        if table == "reward":
            return
        own = registry(table).get(name).settings.__struct_fields__
        if key in own:
            return
        known = [f"{table}.{name}.{one}" for one in own]
    elif key:
        raise ConfigError(f"{_said(origin)}: {dotted}: no {table} {name!r}{nearest(name, registry(table))}")
    elif table == "objective" and name:
        if _readers(name):
            return
        kinds = map(registry(table).get, registry(table))
        known += [f"objective.{one}" for kind in kinds for one in kind.settings.__struct_fields__]
    meant = near(dotted, known)
    raise ConfigError(f"{_said(origin)}: unknown key {dotted}{f'; did you mean {meant}?' if meant else ''}")


def _said(origin: str) -> str:
    return {"file": "config file", "flag": "--set"}.get(origin, origin)


def path_of(dotted: str) -> list[str]:
    """Where a key stands in a configuration: `reward.numeric.tolerance` in reward.settings."""
    table, name, key = _own_key(_OLDER.sub(r"\1", dotted))
    return [table, "settings", name, key] if key else dotted.split(".")


def _put(table: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = path_of(dotted)
    for parent in parents:
        table = table.setdefault(parent, {})
    table[last] = value
