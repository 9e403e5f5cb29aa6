"""What is frozen when a run is made: its splits and its templates."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from selfrefine import prompts
from selfrefine.config import Config
from selfrefine.errors import ConfigError
from selfrefine.records import Task
from selfrefine.runfolder.run import check_disjoint
from selfrefine.stages.settings import asks_choice, teacher_template
from selfrefine.steps.scoring import check_tasks, reward_templates
from selfrefine.tasks import load
from selfrefine.tasks.base import TaskOptions
from selfrefine.tasks.families import Family
from selfrefine.tasks.splits import dedupe, split


def run_prompts(config: Config) -> dict[str, str]:
    """The templates a run uses, by the file name it keeps them under."""
    texts = {
        "critique.md": prompts.load(config.critique.critique_prompt, "critique").source,
        "revise.md": prompts.load(config.critique.revise_prompt, "revise").source,
    }
    if asks_choice(config):
        texts["choice.md"] = prompts.load(config.critique.choice_prompt, "choice").source
    if config.critique.principles is not None:
        texts["principles.txt"] = prompts.principles_text(config.critique.principles)
    if config.reflect.plan != "off" and config.reflect.causes:
        texts["causes.md"] = prompts.load("causes", "causes").source
    if config.rationalise.n or config.reflect.plan == "auto":  # which may come to rationalise
        texts["hint.md"] = prompts.load(config.rationalise.prompt, "hint").source
    if config.propose.n:
        texts["propose.md"] = prompts.load(config.propose.prompt, "propose").source
    if (teacher := teacher_template(config)) is not None:
        texts["teacher.md"] = teacher.source
    texts |= {f"{kind}.md": template.source for kind, template in reward_templates(config).items()}
    return texts


def make_splits(config: Config, say: Callable[[str], object] | None = None) -> dict[str, list[Task]]:
    """train, gate and test, disjoint by id and by prompt. Raises: ConfigError, DataError."""
    own = config.tasks
    if not own.source:
        raise ConfigError("no tasks: name a source with --tasks (`selfrefine tasks` lists the kinds)")
    gate = 0 if own.gate_file else own.gate
    test = 0 if own.test_file else own.test
    options = replace(task_options(config), say=say or (lambda _: None))
    parts = split(load(own.source, options), config.seed, gate, test, own.train)
    splits = {"train": list(parts.train), "gate": list(parts.gate), "test": list(parts.test)}
    for name, file in (("gate", own.gate_file), ("test", own.test_file)):
        if file:
            whole = replace(task_options(config, whole=True), say=options.say)
            splits[name] = dedupe(load(file, whole))[0]
    check_disjoint(splits)
    if not splits["gate"] and config.gate.mode != "off":
        raise ConfigError("there are no gate tasks to measure with: set tasks.gate, or --gate off")
    check_tasks(config, splits)
    if config.propose.n:
        Family(config.propose.family, config.propose.settings, splits["train"])  # it must know these tasks
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
