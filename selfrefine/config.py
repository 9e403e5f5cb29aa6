"""Every setting of a run: default < recipe < config file < flag, unknown keys refused, the nearest named.

The structs are the schema of the TOML file; `[train] lr = 1e-4` is `--set train.lr=1e-4`.
"""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from selfrefine.errors import ConfigError

Positive = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Meta(gt=0.0)]
NonNegative = Annotated[float, Meta(ge=0.0)]
Factor = Annotated[float, Meta(ge=1.0)]
SplitSize = Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0.0, lt=1.0)]


class TasksConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where tasks come from and how they are split. gate, test: counts, or shares of the distinct tasks."""

    source: str = ""
    n: Positive | None = None
    template: str | None = None
    suffix: str = ""
    prompt_field: str | None = None
    reference_field: str | None = None
    settings: dict[str, str | int | float | bool] = {}
    train: Positive | None = None
    gate: SplitSize = 0.2
    test: SplitSize = 0.2
    gate_file: str | None = None
    test_file: str | None = None


Stop = tuple[Annotated[str, Meta(min_length=1)], ...]


class Sampling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an answer is drawn, from the configuration to the decoder (`sampling.draw`). Recorded logprobs are
    those of the policy at temperature 1 whatever these say."""

    temperature: Annotated[
        float, Meta(ge=0.0, description="Divides the logits; 0 is greedy, which the next three do not touch.")
    ] = 1.0
    top_p: Annotated[
        float,
        Meta(gt=0.0, le=1.0, description="Only the likeliest tokens that reach this in sum; 1 is off."),
    ] = 1.0
    top_k: Annotated[int, Meta(ge=0, description="Only the k likeliest tokens; 0 is off.")] = 0
    min_p: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="Only tokens this times as likely as the likeliest, or more; 0 is off.",
        ),
    ] = 0.0
    repetition_penalty: Annotated[
        float,
        Meta(
            gt=0.0,
            description="Tokens of the prompt and of the answer so far: positive logits are divided by it, "
            "negative ones multiplied; 1 is off.",
        ),
    ] = 1.0
    max_new_tokens: Annotated[int, Meta(ge=1, description="Longest answer, in tokens.")] = 128
    stop: Annotated[Stop, Meta(description="Texts before which an answer ends.")] = ()


class GenerateConfig(Sampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are sampled for training."""

    n: Annotated[int, Meta(ge=1, description="Answers to a prompt.")] = 8
    system: Annotated[str | None, Meta(description="System message for prompts that have none.")] = None


class ResampleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """More prompts for a round until `groups` of them have answers of different reward, for at most
    `max_tokens` sampled tokens. groups 0 is off."""

    groups: Natural = 0
    max_tokens: Positive = 100_000


class RationaliseConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """n samples, with the reference as a hint, of each task that no sample got right; 0 is off."""

    n: Natural = 0
    prompt: str = "hint"


class EvaluateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How held-out tasks are answered: greedily unless told otherwise. measure: a reward kept apart from the
    trained ones; without one the trained rewards measure themselves, and the run says so. revise: also
    compare drafts, revisions and fresh samples of the test tasks, at the end or at the start too."""

    measure: Annotated[
        tuple[str, ...],
        Meta(description="Rewards that measure, NAME[:weight]; none: those that are trained on."),
    ] = ()
    n: Annotated[int, Meta(ge=1, description="Answers to a held-out task.")] = 1
    temperature: Annotated[float, Meta(ge=0.0, description="As generate.temperature; 0 is greedy.")] = 0.0
    max_new_tokens: Annotated[
        Positive | None, Meta(description="Longest answer, in tokens; unset: generate.max_new_tokens.")
    ] = None
    stop: Annotated[
        Stop | None, Meta(description="Texts before which an answer ends; unset: generate.stop.")
    ] = None
    revise: Annotated[
        Literal["off", "end", "both"],
        Meta(
            description="Compare drafts, revisions and fresh samples of the test tasks: never, at the end, "
            "or at the start too."
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
    """passes 0 leaves the step out of a cycle. prompts and principles: a shipped name or a file.
    revise false: the critic judges, and nothing is rewritten."""

    passes: Natural = 0
    critic_model: str | None = None
    revise: bool = True
    critique_prompt: str = "critique"
    revise_prompt: str = "revise"
    principles: str | None = None
    feedback: Literal["none", "rewards"] = "none"
    reveal_references: bool = False
    control: bool = True
    max_new_tokens: Positive = 128
    temperature: NonNegative = 1.0


class RewardConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """use: NAME[:weight] each; without any, what measures is trained on. gate_on: the others count only
    where this one passes. invert: 1 - reward is trained on, a control. settings: by reward."""

    use: tuple[str, ...] = ()
    gate_on: str | None = None
    invert: bool = False
    settings: dict[str, dict[str, Any]] = {}


class SelectConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """best-of-n: rows above their group's minimum (or at least min_reward), the best max_per_prompt each.
    band: lowest and highest mean reward of a prompt's answers (the pass rate where rewards are 0 or 1).
    corrections: what a revision turn is taught where its own revision is no better: nothing, or a better
    draft of the task."""

    strategy: Literal["best-of-n", "threshold", "all", "pairs", "labels", "groups"] = "best-of-n"
    min_reward: Share | None = None
    max_per_prompt: Positive | None = None
    dedupe: bool = True
    learn: Literal["answers", "revisions", "critiques", "both"] = "answers"
    corrections: Literal["own", "samples"] = "own"
    candidates: Literal["all", "drafts", "revisions"] = "all"
    band: tuple[Share, Share] | None = None
    margin: Share = 0.0
    pairs_per_prompt: Positive = 1
    chosen: Literal["samples", "references"] = "samples"


class ObjectiveConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is minimised. Each objective reads its own part of this table: see READ_BY."""

    name: Literal["sft", "weighted-sft", "dpo", "ipo", "kto", "reinforce", "rloo", "grpo"] = "sft"
    reference: Literal["round-0", "accepted", "sampler"] = "round-0"
    beta: PositiveFloat = 0.1
    nll: NonNegative = 0.0
    desirable_weight: NonNegative = 1.0
    undesirable_weight: NonNegative = 1.0
    weights: Literal["reward", "exponential", "filter"] = "reward"
    weight_temperature: PositiveFloat = 1.0
    clip_low: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.2
    clip_high: PositiveFloat = 0.28
    normalise: Literal["tokens", "sequences"] = "tokens"
    divide_by_std: bool = True
    kl: NonNegative = 0.0


READ_BY: dict[str, tuple[str, ...]] = {
    "reference": ("dpo", "ipo", "kto", "reinforce", "rloo", "grpo"),
    "beta": ("dpo", "ipo", "kto"),
    "nll": ("dpo", "ipo"),
    "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
    "weights": ("weighted-sft",),
    "weight_temperature": ("weighted-sft",),
    "clip_low": ("rloo", "grpo"),
    "clip_high": ("reinforce", "rloo", "grpo"),
    "normalise": ("grpo",),
    "divide_by_std": ("grpo",),
    "kl": ("reinforce", "rloo", "grpo"),
}
"""Setting of [objective] to the objectives it changes something for."""


class LoraConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """targets "all-linear" is every linear layer except the head."""

    r: Positive = 16
    alpha: Positive = 32
    dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    targets: tuple[str, ...] = ("all-linear",)


class TrainConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """steps > 0 overrides epochs. token_budget 0 is the device class's constant.
    replay: share of the training tokens taken from earlier rounds."""

    lr: PositiveFloat = 2e-4
    epochs: PositiveFloat = 1.0
    steps: Natural = 0
    batch_size: Positive = 16
    token_budget: Natural = 0
    warmup: Share = 0.1
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    clip: NonNegative = 1.0
    weight_decay: NonNegative = 0.0
    checkpoint_steps: Positive = 20
    start: Literal["base", "adapter"] = "base"
    replay: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    lora: LoraConfig = LoraConfig()


class ComputeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How numbers are computed, not what is computed."""

    plain: Annotated[
        bool,
        Meta(
            description="Without own kernels, patched forwards and shared rows: slower, larger in memory. "
            "SELFREFINE_PLAIN=1 in the environment turns it on, too."
        ),
    ] = False


class CycleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """rounds, until, max_minutes and max_tokens may change when a run is continued; all else is frozen with
    it. max_tokens: sampled and trained ones, without what measures."""

    rounds: Natural = 3
    prompts_per_round: Positive = 128
    until: Share | None = None
    max_minutes: PositiveFloat | None = None
    max_tokens: Positive | None = None
    patience: Positive = 2


class GateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate must show on the gate tasks. alpha: the chance that a run whose rounds changed nothing
    keeps one all the same. wear: how far off repeated looks may make the gate tasks before it is said."""

    mode: Literal["strict", "significant", "off"] = "significant"
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.05
    wear: Share = 0.2


class GuardsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is watched beside the main measure. All warn; forgetting, perplexity and gold also veto. A share
    of 1 and a high factor turn a guard off."""

    probe: bool = True
    gold: str | None = None
    forgetting_warn: Share = 0.1
    forgetting_veto: Share = 0.25
    perplexity_warn: Factor = 1.5
    perplexity_veto: Factor = 4.0
    gold_warn: Share = 0.02
    gold_veto: Share = 0.1
    distinct_warn: Share = 0.5
    entropy_warn: Share = 0.8
    length_warn: Factor = 2.0
    repetition_warn: Share = 0.1
    truncation_warn: Share = 0.1
    correlation_warn: Share = 0.5


class AlarmsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Thresholds beyond which a stage says that something is going wrong. Shares ring from the threshold on;
    entropy rings below it, kl and grad_norm above it. Nothing is stopped."""

    entropy: NonNegative = 0.01
    kl: NonNegative = 2.0
    clip_share: Share = 0.8
    grad_norm: NonNegative = 10.0
    no_spread: Share = 0.95
    truncated: Share = 0.5
    unparsed: Share = 0.5


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole run. recipe: the method, by name or file; its settings lie below the configuration file's."""

    seed: Annotated[int, Meta(ge=0, lt=2**53)] = 0
    model: str = "smollm2"
    adapter: str | None = None
    recipe: str | None = None
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
    for origin, table in layers:
        for dotted, value in flatten(table).items():
            check_key(dotted, origin)
            _put(merged, dotted, value)
            origins[dotted] = origin
    try:
        config = msgspec.convert(merged, Config, strict=True)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        raise ConfigError(f"setting {path.rstrip('`') or '?'}: {message[0].lower()}{message[1:]}") from None
    _check_objective(config.objective, origins)
    return Settings(config, origins)


def _check_objective(config: ObjectiveConfig, origins: Mapping[str, str]) -> None:
    """A flag that the objective never reads is an error: whoever typed it believes that it acts.

    In a file such settings may stand: the same file is run with several objectives.
    """
    for setting, objectives in READ_BY.items():
        if origins[f"objective.{setting}"] == "flag" and config.name not in objectives:
            raise ConfigError(
                f"--set objective.{setting}: {config.name} does not read it, only {', '.join(objectives)}"
            )
    if origins["objective.reference"] == "flag" and config.name in READ_BY["kl"] and not config.kl:
        raise ConfigError(f"--set objective.reference: {config.name} has none while objective.kl is 0")
    if origins["objective.weight_temperature"] == "flag" and config.weights != "exponential":
        raise ConfigError("--set objective.weight_temperature: only objective.weights=exponential reads it")


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
    """Nested tables to dotted keys; what stands under a free table (…settings) stays one value."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and not dotted.endswith("settings"):
            flat |= flatten(value, f"{dotted}.")
        else:
            flat[dotted] = value
    return flat


@functools.cache  # asked for each key that is checked, and taking annotations apart is slow
def keys(struct: type[Struct] = Config, prefix: str = "") -> Mapping[str, Any]:
    """Every dotted key with its default."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            found |= keys(field.type, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = field.default
    return found


def check_key(dotted: str, origin: str) -> None:
    """Raises: ConfigError for a key that does not exist, naming the nearest one that does."""
    known = keys()
    if dotted in known or any(dotted.startswith(f"{k}.") for k in known if k.endswith("settings")):
        return
    near = difflib.get_close_matches(dotted, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    where = {"file": "config file", "flag": "--set"}.get(origin, origin)
    raise ConfigError(f"{where}: unknown key {dotted}{hint}")


def _put(table: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
    table[last] = value
