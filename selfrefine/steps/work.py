"""Everything a run's stages share: the run, its configuration, the engines, the rewards, the watch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from selfrefine import prompts
from selfrefine.config import Config
from selfrefine.engines.base import Engine, Sampling
from selfrefine.errors import ConfigError, RunFolderError
from selfrefine.memory import Memory, PlanChange
from selfrefine.rewards.base import RewardOptions, Scorer
from selfrefine.rundir import Run
from selfrefine.steps import reward
from selfrefine.steps.critique import CritiqueSettings, Templates
from selfrefine.steps.finetune import Policies, TrainableEngine
from selfrefine.steps.generate import GenerateSettings
from selfrefine.steps.watch import Watch

OWN_JUDGE = frozenset({"critic", "p-true", "fluency"})
"""Rewards in which a model judges itself: a gain in them is no measured improvement."""


@dataclass
class Work:
    """One process's work on one run. `engine` holds the policy; `critic` is the same engine by default."""

    run: Run
    config: Config
    engine: Engine
    critic: Engine
    scorers: tuple[Scorer, ...]
    measures: tuple[Scorer, ...]
    watch: Watch
    adapter: Path | None = None
    """What the engine's policy is now; set through `be` only."""

    def be(self, adapter: Path | None) -> None:
        """Make base + adapter the engine's policy, unless it is already."""
        base = Path(self.config.adapter) if self.config.adapter else None
        wanted = adapter or base
        if isinstance(self.engine, TrainableEngine) and wanted != self.adapter:
            self.engine.use_adapter(wanted)
        self.adapter = wanted

    def forget_policy(self) -> None:
        """After training the engine's policy is the bare base, whatever it was before."""
        self.adapter = None

    @property
    def gate_on(self) -> str | None:
        """The gating reward of held-out tasks: only where the trained rewards are also the measure."""
        return None if self.config.evaluate.measure else self.config.reward.gate_on

    @property
    def self_measured(self) -> bool:
        return any(scorer.name in OWN_JUDGE for scorer in self.measures)


def start(run: Run, config: Config, engine: Engine, critic: Engine | None, watch: Watch) -> Work:
    """Build the rewards and put everything together. Raises: ConfigError."""
    scorers, measures = build_both(config, engine)
    _follow_plan(run, {"policy": engine, "critic": critic or engine}, watch)
    return Work(run, config, engine, critic or engine, scorers, measures, watch, adapter=_unset())


def fine_tune_policies(work: Work) -> Policies:
    """Where a fine-tune of this run begins, who sampled, and what it is held against."""
    first = Path(work.config.adapter) if work.config.adapter else None
    accepted = work.run.accepted_adapter or first
    return Policies(
        start=accepted if work.config.train.start == "adapter" else first,
        sampler=accepted,
        reference=first if work.config.objective.reference == "round-0" else accepted,
    )


def _follow_plan(run: Run, engines: dict[str, Engine], watch: Watch) -> None:
    """Give the engines the budgets that fitted before, and write down what memory makes smaller now."""
    plan = run.plan()
    if plan:
        shown = ", ".join(f"{work} {tokens:,}" for own in plan.values() for work, tokens in own.items())
        watch.say(f"memory ran out in this run before, tokens at once: {shown}; it is outside byte identity")

    def changed(who: str, memory: Memory, change: PlanChange) -> None:
        plan[who] = dict(memory.budgets)
        run.keep_plan(plan)
        run.events.append("plan-change", engine=who, **msgspec.structs.asdict(change))
        watch.say(change.sentence())

    # The policy comes last: where it is its own critic, one name is enough.
    for who, engine in reversed(engines.items()):
        memory = getattr(engine, "memory", None)
        if memory is not None:  # the scripted engine needs none
            memory.budgets |= plan.get(who, {})
            memory.on_change = partial(changed, who, memory)


def build_both(config: Config, engine: Engine) -> tuple[tuple[Scorer, ...], tuple[Scorer, ...]]:
    """The rewards that are trained on, and those that measure. Raises: ConfigError."""
    if not config.reward.use:
        raise ConfigError("no reward: say what a good answer is with -r NAME (`selfrefine reward --help`)")
    measure = config.evaluate.measure or config.reward.use
    check_measure(measure)
    scorers = build_rewards(config, config.reward.use, engine)
    if config.reward.gate_on is not None:
        reward.score((), scorers, config.reward.gate_on)  # refuses a gate that is not among them
    return scorers, build_rewards(config, measure, engine)


def check_measure(specs: Sequence[str]) -> None:
    """Raises: ConfigError for a reward that cannot measure held-out answers."""
    if any(reward.parse_spec(text).name == "critic" for text in specs):
        raise ConfigError(
            "held-out answers are not criticised, so `critic` cannot measure them; name another reward with "
            "--measure, such as numeric or gym"
        )


def _unset() -> Path:
    """A path no adapter has: the first `be` always sets the policy."""
    return Path("\0")


def build_rewards(config: Config, specs: Sequence[str], engine: Engine | None) -> tuple[Scorer, ...]:
    """The scorers for `NAME[:weight]` texts. Raises: ConfigError."""
    options = RewardOptions(
        seed=config.seed,
        settings=config.reward.settings,
        reveal_references=config.critique.reveal_references,
    )
    return reward.build([reward.parse_spec(text) for text in specs], options, engine)


def generate_settings(config: Config) -> GenerateSettings:
    """For training rounds."""
    own = config.generate
    sampling = Sampling(
        temperature=own.temperature,
        top_p=own.top_p,
        top_k=own.top_k,
        max_new_tokens=own.max_new_tokens,
        stop=own.stop,
    )
    return GenerateSettings(n=own.n, sampling=sampling, system=own.system)


def evaluate_settings(config: Config) -> GenerateSettings:
    """For held-out tasks: the same prompt and stop strings, greedy by default."""
    own, ours = config.evaluate, config.generate
    sampling = Sampling(
        temperature=own.temperature, max_new_tokens=own.max_new_tokens or ours.max_new_tokens, stop=ours.stop
    )
    return GenerateSettings(n=own.n, sampling=sampling, system=ours.system)


def critique_settings(config: Config) -> CritiqueSettings:
    own, ours = config.critique, config.generate
    return CritiqueSettings(
        passes=max(1, own.passes),
        feedback=own.feedback,
        reveal_references=own.reveal_references,
        critique=Sampling(temperature=own.temperature, max_new_tokens=own.max_new_tokens),
        revision=Sampling(
            temperature=ours.temperature,
            top_p=ours.top_p,
            top_k=ours.top_k,
            max_new_tokens=ours.max_new_tokens,
            stop=ours.stop,
        ),
        control=own.control,
    )


def critique_templates(config: Config, folder: Path | None = None) -> Templates:
    """The templates; in a run, the copies in its prompts folder. Raises: ConfigError."""
    if folder is not None:
        return Templates(
            prompts.load(folder / "critique.md", "critique"), prompts.load(folder / "revise.md", "revise")
        )
    return Templates(
        prompts.load(config.critique.critique_prompt, "critique"),
        prompts.load(config.critique.revise_prompt, "revise"),
    )


def check_policy(expected: str, found: Sequence[Any], where: str) -> None:
    """Rows must come from the policy this round starts from: a loop that keeps sampling the old model learns
    nothing new for ever. Raises: RunFolderError."""
    for row in found:
        if row.policy and row.policy != expected and row.finish_reason != "error":
            raise RunFolderError(
                f"{where}: row {row.id} was sampled by policy {row.policy[:16]}, this round's is "
                f"{expected[:16]}; delete the file to sample again"
            )
