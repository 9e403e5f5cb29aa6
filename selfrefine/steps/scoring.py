"""Which rewards train and which measure, from the configuration; what may not be asked of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selfrefine.config import Config
from selfrefine.engines.base import Engine
from selfrefine.errors import ConfigError, DataError
from selfrefine.records import Task
from selfrefine.rewards import REWARDS
from selfrefine.rewards.base import RewardOptions, Scorer, own_settings
from selfrefine.steps import reward
from selfrefine.words import nearest


def build_rewards(config: Config, specs: Sequence[str], engine: Engine | None) -> tuple[Scorer, ...]:
    """The scorers for `NAME[:weight]` texts. Raises: ConfigError."""
    options = RewardOptions(
        seed=config.seed,
        settings=config.reward.settings,
        reveal_references=config.critique.reveal_references,
        engine=engine,
    )
    return reward.build([reward.parse_spec(text) for text in specs], options)


def trained_specs(config: Config) -> Sequence[str]:
    """The rewards that are trained on: without any, those that measure. Raises: ConfigError."""
    use = config.reward.use or config.evaluate.measure
    if not use:
        raise ConfigError("no reward: say what a good answer is with -r NAME (`selfrefine rewards ls`)")
    return use


def measuring_specs(config: Config) -> Sequence[str]:
    """The rewards that measure: without any of their own, the trained ones. Raises: ConfigError."""
    specs = config.evaluate.measure or trained_specs(config)
    check_measure(specs)
    return specs


def check_rewards(config: Config, engine: Engine) -> tuple[tuple[Scorer, ...], tuple[Scorer, ...]]:
    """Those that are trained on, and those that measure. Raises: ConfigError where something does not fit."""
    trained = trained_specs(config)
    measures = build_rewards(config, measuring_specs(config), engine)
    scorers = build_rewards(config, trained, engine)
    if gate_among(measures, config) is None:
        reward.score((), scorers, config.reward.gate_on)  # refuses a gate that is among neither
    check_gold(config.guards.gold, trained)
    if config.guards.gold is not None:
        build_rewards(config, [config.guards.gold], engine)
    return scorers, measures


def check_named(config: Config) -> None:
    """What `check_rewards` refuses, as far as no model is needed for it. Raises: ConfigError."""
    trained, measuring = trained_specs(config), measuring_specs(config)
    gold = [config.guards.gold] if config.guards.gold is not None else []
    for specs in (trained, measuring, gold):
        modelless = [text for text in specs if not reward.needs_engine([reward.parse_spec(text)])]
        if modelless:
            build_rewards(config, modelless, None)
    gate, names = config.reward.gate_on, {reward.parse_spec(text).name for text in (*trained, *measuring)}
    if gate is not None and gate not in names:
        raise ConfigError(f"--gate-on {gate}: not among the rewards scored{nearest(gate, names)}")
    check_gold(config.guards.gold, trained)


def check_tasks(config: Config, splits: Mapping[str, Sequence[Task]]) -> None:
    """Raises: DataError where no task of a split has what a reward scores its answers by: a reference."""
    for split, tasks in splits.items():
        if not tasks or any(reference.strip() for task in tasks for reference in task.references):
            continue
        for text in trained_specs(config) if split == "train" else measuring_specs(config):
            kind = REWARDS.get(reward.parse_spec(text).name)
            own, _ = own_settings(kind, config.reward.settings.get(kind.name, {}))
            needed = kind.needs_references
            if needed(own) if callable(needed) else needed:
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
        raise ConfigError(f"guards.gold {name}: it is trained on, so it guards against nothing")
    if REWARDS.get(own).judge == "policy":
        raise ConfigError(f"guards.gold {name}: there the policy would judge itself")
