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
from selfrefine.registry import registry, split
from selfrefine.words import near, nearest

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


class GenerateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are drawn for training. top_p 1 and top_k 0 are off; temperature 0 is greedy."""

    n: Positive = 8
    temperature: NonNegative = 1.0
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    top_k: Natural = 0
    max_new_tokens: Positive = 128
    stop: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    system: str | None = None


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

    measure: tuple[str, ...] = ()
    n: Positive = 1
    temperature: NonNegative = 0.0
    max_new_tokens: Positive | None = None
    revise: Literal["off", "end", "both"] = "off"


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
    """What is minimised. settings: by objective; `resolve` keeps those of the chosen one, in full."""

    name: str = "sft"
    reference: Literal["round-0", "accepted", "sampler"] = "round-0"
    settings: dict[str, dict[str, Any]] = {}


class LoraConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """targets "all-linear" is every linear layer except the head."""

    r: Positive = 16
    alpha: Positive = 32
    dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    targets: tuple[str, ...] = ("all-linear",)


class TrainConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """lr: not set, it is the objective's own. steps > 0 overrides epochs. token_budget 0 is the device
    class's constant. replay: share of the training tokens taken from earlier rounds."""

    lr: PositiveFloat | None = None
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
        message, _, path = str(error).partition(" - at `$.")
        raise ConfigError(f"setting {path.rstrip('`') or '?'}: {message[0].lower()}{message[1:]}") from None
    return Settings(_with_objective(config, origins), origins)


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
        message, _, path = str(error).partition(" - at `$")
        raise ConfigError(f"setting {where}{path.rstrip('`')}: {message[0].lower()}{message[1:]}") from None


def _with_objective(config: Config, origins: Mapping[str, str]) -> Config:
    """With what the objective decides filled in, so that a manifest says it: all its settings, its rate.

    A flag that it never reads is an error: whoever typed it believes that it acts. In a file such settings
    may stand: the same file is run with several objectives.
    """
    own, kind = config.objective, registry("objective").get(config.objective.name)
    settings = objective_settings(own)
    unread = kind.unread(settings)
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


def _put(table: dict[str, Any], dotted: str, value: Any) -> None:
    first, name, key = _own_key(dotted)
    parents, last = (
        ([first, "settings", name], key) if key else (dotted.split(".")[:-1], dotted.split(".")[-1])
    )
    for parent in parents:
        table = table.setdefault(parent, {})
    table[last] = value
