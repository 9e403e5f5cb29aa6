"""From the configuration to what the steps take, and the settings that contradict each other."""

from __future__ import annotations

import math
from pathlib import Path

from msgspec.structs import replace

from selfrefine import prompts
from selfrefine.config import Config, Sampling
from selfrefine.errors import ConfigError
from selfrefine.layers import objective_settings
from selfrefine.objectives import OBJECTIVES
from selfrefine.objectives.fit import check_rows
from selfrefine.prompts import Template
from selfrefine.steps import select
from selfrefine.steps.critique import CritiqueSettings, Templates
from selfrefine.steps.reward import needs_engine, parse_spec
from selfrefine.steps.scoring import check_named, measuring_specs

_TURNS = ("revisions", "critiques", "both")
_TOLD = "rewards tell what is wrong; set critique.source = rewards, a reward's name or file.py:function"
"""`select.learn` of what only a revision makes."""


def right_mark(config: Config) -> float:
    """From this reward on an answer counts as right."""
    return 1.0 if config.select.min_reward is None else config.select.min_reward


def most_written(config: Config) -> int:
    """Tasks of a round that the policy wrote, at most."""
    own = config.propose
    return min(own.n, math.floor(own.share * config.cycle.prompts_per_round))


def critique_settings(config: Config, folder: Path | None = None) -> CritiqueSettings:
    """`folder`: the prompts of a run, which are its own copies. Raises: ConfigError."""
    own = config.critique
    text = ""
    if own.principles is not None:
        text = prompts.principles_text(folder / "principles.txt" if folder else own.principles)
    return CritiqueSettings(
        passes=max(1, own.passes),
        revise=own.revise,
        principles=prompts.principles(text),
        feedback=own.feedback,
        resume=own.revise_from == "fault",
        reveal_references=own.reveal_references,
        verdict=own.verdict,
        ok_from=own.ok_from,
        mark=right_mark(config),
        critique=Sampling(temperature=own.temperature, max_new_tokens=own.max_new_tokens),
        revision=_revision(config),
        drafting=config.generate,
        control=own.control,
    )


def _revision(config: Config) -> Sampling:
    cooler = config.critique.revision_temperature
    return config.generate if cooler is None else replace(config.generate, temperature=cooler)


def critique_templates(config: Config, folder: Path | None = None) -> Templates:
    """The templates; in a run, the copies in its prompts folder. Raises: ConfigError."""
    own = config.critique
    made = Templates(
        prompts.load(folder / "critique.md" if folder else own.critique_prompt, "critique"),
        prompts.load(folder / "revise.md" if folder else own.revise_prompt, "revise"),
        choice_template(config, folder) if own.verdict == "scored" else None,
    )
    shows = "principle" in made.critique.uses
    if shows and own.principles is None:
        raise ConfigError(
            f"critique.principles: {made.critique.name} needs principles; name a file with one per line"
        )
    if own.principles is not None and not shows:
        raise ConfigError(
            f"critique.principles: {made.critique.name} does not use a principle; "
            "set critique.critique_prompt = constitutional-critique"
        )
    return made


def choice_template(config: Config, folder: Path | None = None) -> Template:
    """The question behind a scored verdict; in a run, its copy. Raises: ConfigError."""
    return prompts.load(folder / "choice.md" if folder else config.critique.choice_prompt, "choice")


def asks_choice(config: Config) -> bool:
    """Is a model's verdict read off its probabilities, in a critique or to choose among answers?"""
    return config.critique.verdict == "scored" or "critic" in (config.generate.by, config.evaluate.by)


def teacher_template(config: Config, folder: Path | None = None) -> Template | None:
    """What the objective's teacher is asked, None where it has none; in a run, its copy.
    Raises: ConfigError."""
    kind = OBJECTIVES.get(config.objective.name)
    if kind.teacher is None:
        return None
    name = kind.teacher(objective_settings(config.objective)).prompt
    return prompts.load(folder / "teacher.md" if folder else name, "teacher")


def check_critique(config: Config) -> None:
    """Raises: ConfigError for settings of a critique that contradict each other, in a run or in a pipe."""
    if config.critique.passes > 1 and not config.critique.revise:
        raise ConfigError("critique.passes counts revisions; with critique.revise = false it must be 1")
    _check_source(config)
    critique_templates(config)
    critique_settings(config)


def _check_source(config: Config) -> None:
    """Raises: ConfigError for settings of one source of critiques beside another."""
    own, by_model = config.critique, config.evaluate.critic == "model"
    if own.critics:
        _check_critics(config)
    if own.stop_without_gain and (own.passes < 2 or not own.revise):
        raise ConfigError(
            "critique.stop_without_gain always makes the first pass: set critique.passes to 2 or more, or "
            "leave it out"
        )
    if config.select.learn == "details":
        if own.source == "model" or not own.passes:
            raise ConfigError(f"select.learn details: {_TOLD}, and critique.passes = 1")
        if own.feedback != "none":
            raise ConfigError(
                "select.learn details: with critique.feedback the critic's prompt shows what it must find; "
                "set critique.feedback = none"
            )
    if config.select.corrections == "broken":
        if own.source == "model":
            raise ConfigError(f"select.corrections broken: {_TOLD}")
        trained = [parse_spec(spec) for spec in config.reward.use or config.evaluate.measure]
        if needs_engine(trained) or "majority" in [spec.name for spec in trained]:
            raise ConfigError(
                "select.corrections broken: broken copies are scored one by one and by no model; use "
                "select.corrections = near with rewards that vote, rank or ask a model"
            )
        if own.feedback != "none" or own.principles is not None:
            raise ConfigError(
                "select.corrections broken: its turns show neither feedback nor principles; leave out "
                "critique.feedback and critique.principles"
            )
    if own.revise_from == "fault" and config.cycle.rounds and config.select.learn in ("revisions", "both"):
        raise ConfigError(
            f"select.learn {config.select.learn}: a revision from a fault is an answer to the task and has "
            "no turn of its own; set select.learn = answers, or critique.revise_from = start"
        )
    asks, scored = "model" in own.asked or by_model, own.verdict == "scored"
    chooses = "critic" in (config.generate.by, config.evaluate.by)
    for key, set_, taken, why in (
        ("evaluate.critic model", by_model, config.evaluate.revise != "off", "evaluate.revise"),
        ("critique.verdict scored", scored, asks or "policy" in own.asked, "a model that criticises"),
        ("critique.critic_model", own.critic_model is not None, asks or chooses, "a model that criticises"),
        ("critique.choice_prompt", own.choice_prompt != "choice", asks_choice(config), "a scored verdict"),
        ("critique.ok_from", own.ok_from != 0.5, scored, "critique.verdict = scored"),
        (
            "critique.revision_temperature",
            own.revision_temperature is not None,
            own.revise,
            "critique.revise = true",
        ),
        (
            "critique.revise_from fault",
            own.revise_from == "fault",
            own.revise and not by_model and not {"model", "policy"}.issuperset(own.asked),
            "rewards that place a fault (critique.source = rewards, a reward's name or file.py:function)",
        ),
    ):
        if set_ and not taken:
            raise ConfigError(f"{key} is not used without {why}; leave it out")


def _check_critics(config: Config) -> None:
    """Raises: ConfigError for several critics that are none, or one twice, or beside what takes one alone."""
    own, chosen = config.critique, config.select
    if own.source != "model":
        raise ConfigError(
            f"critique.source {own.source} is not used with critique.critics: name it there, and leave out "
            "critique.source"
        )
    if len(own.critics) == 1:
        raise ConfigError(
            f"critique.critics: one alone has nobody to agree with; set critique.source = {own.critics[0]}"
        )
    for who in own.critics:
        if own.critics.count(who) > 1:
            raise ConfigError(
                f"critique.critics: {who} is named twice, and would agree with itself; name it once"
            )
    if {"model", "policy"} <= {*own.critics} and own.critic_model is None:
        raise ConfigError(
            "critique.critics: model and policy are one model; set critique.critic_model, or leave out policy"
        )
    learns = {"critiques", "both", "details"} & {chosen.learn}
    if learns or chosen.corrections == "broken":
        key = f"learn {chosen.learn}" if learns else "corrections broken"
        raise ConfigError(
            f"select.{key}: of several critics none is the one to learn from; leave out critique.critics, "
            "and set critique.source"
        )


def check_run(config: Config) -> None:
    """What needs neither a model nor tasks: names, and settings that contradict each other. Raises:
    ConfigError."""
    check_rows(config.objective.name, config.select)
    check_method(config)
    measuring_specs(config)
    check_named(config)


def check_method(config: Config) -> None:
    """Raises: ConfigError for settings that contradict each other or would be ignored."""
    own, chosen = config.critique, config.select
    revises = own.passes > 0 and own.revise
    select.check(chosen)
    if own.passes:
        check_critique(config)
    for wanted, what in (
        (config.evaluate.revise != "off", f"evaluate.revise {config.evaluate.revise}"),
        (config.cycle.rounds > 0 and chosen.learn in _TURNS, f"select.learn {chosen.learn}"),
        (config.cycle.rounds > 0 and chosen.candidates == "revisions", "select.candidates revisions"),
    ):
        if wanted and not revises:
            raise ConfigError(f"{what} needs revisions: set critique.passes, and critique.revise = true")
    if not own.passes:
        _check_source(config)
    if own.stop_without_gain and not config.cycle.rounds:
        raise ConfigError(
            "critique.stop_without_gain looks at training rounds, and cycle.rounds is 0; leave it out"
        )
    if config.resample.groups and own.passes:
        raise ConfigError("resample does not work with critique: set critique.passes = 0")
    if config.resample.groups and chosen.strategy not in ("pairs", "groups"):
        raise ConfigError("resample needs select.strategy pairs or groups, which compare rewards")
    if config.rationalise.n and chosen.strategy == "groups":
        raise ConfigError("rationalise does not work with select.strategy groups, which need plain samples")
    if config.propose.n:
        _check_propose(config)


def _check_propose(config: Config) -> None:
    """Raises: ConfigError for written tasks that nothing would come of."""
    if not config.cycle.rounds:
        raise ConfigError("propose.n is for training rounds, and cycle.rounds is 0; leave it out")
    if not most_written(config):
        raise ConfigError(
            f"propose.share {config.propose.share:g} of cycle.prompts_per_round "
            f"{config.cycle.prompts_per_round:,} is less than one task; raise one of them"
        )
    chosen, objective = config.select, config.objective.name
    if not config.propose.learn:
        return
    if OBJECTIVES.get(objective).teacher is not None:
        raise ConfigError(
            f"propose.learn: objective {objective} has nothing about a written task to show its teacher but "
            "how often it was solved; set objective.name = sft, or propose.learn = false"
        )
    if chosen.learn != "answers" or chosen.strategy not in select.SINGLE:
        raise ConfigError(
            f"propose.learn: a written task has no other text to its request to be compared with; set "
            f"select.learn = answers and select.strategy {', '.join(select.SINGLE)}"
        )
