"""Which rewards train and which measure, from the configuration; what may not be asked of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from selfrefine import prompts
from selfrefine.config import Config
from selfrefine.engines.base import Engine
from selfrefine.errors import ConfigError, DataError
from selfrefine.judging import MODELS
from selfrefine.prompts import Template
from selfrefine.records import Task
from selfrefine.rewards import REWARDS
from selfrefine.rewards.base import Limits, RewardOptions, Scorer, own_settings
from selfrefine.steps import reward


def build_rewards(
    config: Config,
    specs: Sequence[str],
    engine: Engine | None,
    *,
    folder: Path | None = None,
    texts: bool = False,
) -> tuple[Scorer, ...]:
    """The scorers for `NAME[:weight]` texts. `folder`: the prompts of a run, which are its own copies;
    `texts`: they criticise. Raises: ConfigError."""
    own = config.reward
    limits = Limits(memory_gib=own.isolate_memory_gib, cpu_s=own.isolate_cpu_s)
    options = RewardOptions(
        seed=config.seed,
        settings=own.settings,
        reveal_references=config.critique.reveal_references,
        engine=engine,
        timeout_s=own.timeout_s,
        isolate=limits if own.isolate else None,
        prompts=folder,
        texts=texts,
    )
    return reward.build([reward.parse_spec(text) for text in specs], options) if specs else ()


def reward_templates(config: Config) -> dict[str, Template]:
    """By kind, the templates by which the rewards that are named ask a model. Raises: ConfigError."""
    gold = [config.guards.gold] if config.guards.gold is not None else []
    named = {
        reward.parse_spec(text).name
        for text in (*config.reward.use, *config.evaluate.measure, *gold, *config.critique.asked)
    }
    found: dict[str, Template] = {}
    for name in sorted(named - {*MODELS, "rewards"}):
        own, _ = own_settings(kind := REWARDS.get(name), config.reward.settings.get(name, {}))
        found |= {what: prompts.load(where, what) for what, where in kind.asks(own).items()}
    return found


def trained_specs(config: Config) -> Sequence[str]:
    """The rewards that are trained on: without any, those that measure. Raises: ConfigError."""
    use = config.reward.use or config.evaluate.measure
    if not use:
        raise ConfigError("no reward given: use -r NAME (`selfrefine rewards ls` lists them)")
    return use


def measuring_specs(config: Config) -> Sequence[str]:
    """The rewards that measure: without any of their own, the trained ones. Raises: ConfigError."""
    specs = config.evaluate.measure or trained_specs(config)
    check_measure(specs)
    return specs


def check_rewards(config: Config, engine: Engine) -> tuple[tuple[Scorer, ...], tuple[Scorer, ...]]:
    """Those that are trained on, and those that measure. Raises: ConfigError where something does not fit."""
    check_named(config)
    trained = trained_specs(config)
    measures, scorers = (build_rewards(config, specs, engine) for specs in (measuring_specs(config), trained))
    if config.guards.gold is not None:
        build_rewards(config, [config.guards.gold], engine)
    return scorers, measures


def check_named(config: Config) -> None:
    """What is wrong with the rewards that are named, as far as no model is needed to know: before a row is
    read, in a verb and in a run. Raises: ConfigError."""
    use, measure = config.reward.use, config.evaluate.measure
    gold = [config.guards.gold] if config.guards.gold is not None else []
    for texts in filter(None, (use, measure, gold)):
        reward.check(list(map(reward.parse_spec, texts)), config.reward.settings)
        modelless = [text for text in texts if not reward.needs_engine([reward.parse_spec(text)])]
        if modelless:
            build_rewards(config, modelless, None)
    check_critics(config)
    reward_templates(config)
    check_measure(measure)
    names = {reward.parse_spec(text).name for text in (*use, *measure)}
    if names:
        reward.check_gate(config.reward.gate_on, names)
    check_gold(config.guards.gold, use or measure)


def check_critics(config: Config) -> None:
    """The rewards that criticise. Raises: ConfigError for a name that is none."""
    own = config.critique
    key, models = ("critics", "model, policy") if own.critics else ("source", "model")
    for who in own.asked:
        if who in (*models.split(", "), "rewards"):
            continue
        source = reward.parse_spec(who)
        if source.name not in REWARDS:
            raise ConfigError(
                f"critique.{key} {who}: use {models}, rewards, the name of a reward "
                "(`selfrefine rewards ls`), or file.py:function"
            )
        if source.name != who:
            raise ConfigError(
                f"critique.{key} {who}: a critic has no weight, each has one vote; write {source.name}"
            )
        if source.name == "critic":
            raise ConfigError(
                f"critique.{key} critic: this reward reads the critique that is to be made; use model"
            )
        reward.check([source], config.reward.settings)
        if not reward.needs_engine([source]):
            build_rewards(config, [source.name], None, texts=True)


def check_tasks(config: Config, splits: Mapping[str, Sequence[Task]]) -> None:
    """Raises: DataError where no task of a split has what a reward scores its answers by: a reference."""
    for split, tasks in splits.items():
        if not tasks or any(reference.strip() for task in tasks for reference in task.references):
            continue
        for text in trained_specs(config) if split == "train" else measuring_specs(config):
            kind = REWARDS.get(reward.parse_spec(text).name)
            own, _ = own_settings(kind, config.reward.settings.get(kind.name, {}))
            if kind.wants_references(own):
                raise DataError(
                    f"reward {kind.name} needs references, and no {split} task has one"
                    f"{reward.WITHOUT_REFERENCES}"
                )


def gate_among(scorers: Sequence[Scorer], config: Config) -> str | None:
    """`reward.gate_on` where it is one of these: a recipe may train on another reward than measures."""
    names = {scorer.name for scorer in scorers}
    return config.reward.gate_on if config.reward.gate_on in names else None


def check_measure(specs: Sequence[str]) -> None:
    """Raises: ConfigError for a reward that cannot measure held-out answers."""
    for text in specs:
        if why := REWARDS.get(reward.parse_spec(text).name).why_no_measure:
            raise ConfigError(
                f"{why}; name another reward with --measure: numeric or exact where tasks have references, "
                "else length, regex with a pattern, or file.py:function"
            )


def check_gold(name: str | None, trained: Sequence[str]) -> None:
    """Raises: ConfigError for a gold reward that is trained on, or made of the policy's own answers."""
    if name is None:
        return
    own = reward.parse_spec(name).name
    if own in {reward.parse_spec(text).name for text in trained}:
        raise ConfigError(f"guards.gold {name}: this reward is trained on, so it cannot serve as a guard")
    if REWARDS.get(own).judge == "policy":
        raise ConfigError(
            f"guards.gold {name}: with this reward the policy judges itself, so it cannot serve as a guard"
        )
