"""What is frozen when a run is made: its splits and its templates."""

from __future__ import annotations

from selfrefine import prompts
from selfrefine.config import Config
from selfrefine.errors import ConfigError
from selfrefine.records import Task
from selfrefine.tasks import load
from selfrefine.tasks.base import TaskOptions
from selfrefine.tasks.splits import check_disjoint, dedupe, split

ROWS = {"pairs": ("dpo", "ipo"), "labels": ("kto",), "groups": ("reinforce", "rloo", "grpo")}
"""Selection strategy to the objectives that learn from such rows; the other strategies pick good answers."""


def check_objective(config: Config) -> None:
    """Raises: ConfigError where what is selected is not what the objective learns from.

    Found out after the first round's sampling, this would cost the sampling.
    """
    name, strategy = config.objective.name, config.select.strategy
    needed = next((rows for rows, objectives in ROWS.items() if name in objectives), None)
    if needed and strategy != needed:
        raise ConfigError(
            f"objective {name} learns from {needed}, select.strategy is {strategy}: "
            f"set select.strategy={needed}"
        )
    if not needed and strategy in ROWS:
        raise ConfigError(
            f"objective {name} learns from good answers, select.strategy {strategy} is for "
            f"{', '.join(ROWS[strategy])}: set objective.name, or another strategy"
        )


def run_prompts(config: Config) -> dict[str, str]:
    """The templates a run uses, by the file name it keeps them under."""
    return {
        "critique.md": prompts.load(config.critique.critique_prompt, "critique").source,
        "revise.md": prompts.load(config.critique.revise_prompt, "revise").source,
    }


def make_splits(config: Config) -> dict[str, list[Task]]:
    """train, gate and test, disjoint by id and by prompt. Raises: ConfigError, DataError."""
    own = config.tasks
    if not own.source:
        raise ConfigError("no tasks: name a source with --tasks (`selfrefine tasks` lists the kinds)")
    gate = 0 if own.gate_file else own.gate
    test = 0 if own.test_file else own.test
    parts = split(load(own.source, task_options(config)), config.seed, gate, test, own.train)
    splits = {"train": list(parts.train), "gate": list(parts.gate), "test": list(parts.test)}
    for name, file in (("gate", own.gate_file), ("test", own.test_file)):
        if file:
            splits[name] = dedupe(load(file, task_options(config, whole=True)))[0]
    check_disjoint(splits["train"], splits["gate"], splits["test"])
    if not splits["gate"] and config.cycle.gate != "off":
        raise ConfigError("there are no gate tasks to measure with: give --gate, or cycle.gate=off")
    return splits


def task_options(config: Config, *, whole: bool = False) -> TaskOptions:
    own = config.tasks
    return TaskOptions(
        n=None if whole else own.n,
        seed=config.seed,
        template=own.template,
        suffix=own.suffix,
        prompt_field=own.prompt_field,
        reference_field=own.reference_field,
        settings={} if whole else own.settings,
    )
