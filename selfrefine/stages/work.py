"""Everything a run's stages share: the run, its configuration, the engines, the rewards, the watch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from selfrefine import prompts
from selfrefine.config import Config
from selfrefine.engines.base import Engine, Sampling
from selfrefine.errors import ConfigError, RunFolderError
from selfrefine.memory import Memory, PlanChange
from selfrefine.records import Sample
from selfrefine.rewards import REWARDS
from selfrefine.rewards.base import RewardOptions, Scorer
from selfrefine.runfolder.run import Run
from selfrefine.stages.alarms import Alarm
from selfrefine.stages.watch import Watch
from selfrefine.steps import reward, select
from selfrefine.steps.critique import CritiqueSettings, Templates
from selfrefine.steps.finetune import Policies, TrainableEngine
from selfrefine.steps.generate import GenerateSettings


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
        """Before training: what the engine's policy is afterwards depends on how far it came."""
        self.adapter = _unset()

    @property
    def gate_on(self) -> str | None:
        """The gating reward of held-out tasks, where it is among those that measure."""
        return gate_among(self.measures, self.config)

    @property
    def trained_gate(self) -> str | None:
        """The gating reward of the answers that are learnt from, where it is among theirs."""
        return gate_among(self.scorers, self.config)

    def scored(self, rows: Sequence[Sample]) -> list[Sample]:
        """Rows with the rewards that are trained on."""
        return reward.score(rows, self.scorers, self.trained_gate, invert=self.config.reward.invert)

    @property
    def self_measured(self) -> bool:
        return any(REWARDS.get(scorer.name).judge != "outside" for scorer in self.measures)


def start(run: Run, config: Config, engine: Engine, critic: Engine | None, watch: Watch) -> Work:
    """Build the rewards and put everything together. Raises: ConfigError."""
    scorers, measures = build_both(config, engine)
    _follow_plan(run, {"policy": engine, "critic": critic or engine}, watch)
    return Work(run, config, engine, critic or engine, scorers, measures, watch, adapter=_unset())


def fine_tune_policies(work: Work) -> Policies:
    """Where a fine-tune of this run begins, who sampled, and what it is held against."""
    first = Path(work.config.adapter) if work.config.adapter else None
    accepted = work.run.accepted_adapter or first
    current = work.run.current_adapter or first  # an undecided candidate samples and is continued
    return Policies(
        start=current if work.config.train.start == "adapter" else first,
        sampler=current,
        reference={"round-0": first, "accepted": accepted, "sampler": current}[
            work.config.objective.reference
        ],
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
    use = config.reward.use or config.evaluate.measure
    if not use:
        raise ConfigError("no reward: say what a good answer is with -r NAME (`selfrefine reward --help`)")
    measure = config.evaluate.measure or use
    check_measure(measure)
    scorers = build_rewards(config, use, engine)
    measures = build_rewards(config, measure, engine)
    check_method(config)
    if gate_among(measures, config) is None:
        reward.score((), scorers, config.reward.gate_on)  # refuses a gate that is among neither
    check_gold(config.guards.gold, use)
    if config.guards.gold is not None:
        build_rewards(config, [config.guards.gold], engine)
    return scorers, measures


def gate_among(scorers: Sequence[Scorer], config: Config) -> str | None:
    """`reward.gate_on` where it is one of these: a recipe may train on another reward than measures."""
    names = {scorer.name for scorer in scorers}
    return config.reward.gate_on if config.reward.gate_on in names else None


def check_measure(specs: Sequence[str]) -> None:
    """Raises: ConfigError for a reward that cannot measure held-out answers."""
    for text in specs:
        if why := REWARDS.get(reward.parse_spec(text).name).why_no_measure:
            raise ConfigError(f"{why}; name what measures with --measure, such as numeric or gym")


def check_gold(name: str | None, trained: Sequence[str]) -> None:
    """Raises: ConfigError for a gold reward that is trained on, or made of the policy's own answers."""
    if name is None:
        return
    own = reward.parse_spec(name).name
    if own in {reward.parse_spec(text).name for text in trained}:
        raise ConfigError(f"guards.gold {name}: it is trained on, so it guards against nothing")
    if REWARDS.get(own).judge == "policy":
        raise ConfigError(f"guards.gold {name}: there the policy would judge itself")


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


@contextmanager
def timed(work: Work, k: int | str, stage: str) -> Iterator[None]:
    """A stage's beginning, end and seconds, in events.jsonl."""
    began = time.monotonic()
    work.run.events.append("stage-begin", round=k, stage=stage)
    yield
    work.run.events.append("stage-end", round=k, stage=stage, seconds=round(time.monotonic() - began, 3))


def right_mark(config: Config) -> float:
    """From this reward on an answer counts as right."""
    return 1.0 if config.select.min_reward is None else config.select.min_reward


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


def critique_settings(config: Config, folder: Path | None = None) -> CritiqueSettings:
    """`folder` as for the templates. Raises: ConfigError."""
    own, ours = config.critique, config.generate
    text = ""
    if own.principles is not None:
        text = prompts.principles_text(folder / "principles.txt" if folder else own.principles)
    return CritiqueSettings(
        passes=max(1, own.passes),
        revise=own.revise,
        principles=prompts.principles(text),
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
    own = config.critique
    made = Templates(
        prompts.load(folder / "critique.md" if folder else own.critique_prompt, "critique"),
        prompts.load(folder / "revise.md" if folder else own.revise_prompt, "revise"),
    )
    shows = "principle" in made.critique.uses
    if shows and own.principles is None:
        raise ConfigError(f"critique.principles: {made.critique.name} asks for one; name a file of them")
    if own.principles is not None and not shows:
        raise ConfigError(
            f"critique.principles: {made.critique.name} shows no principle; "
            "take critique.critique_prompt = constitutional-critique"
        )
    return made


def check_method(config: Config) -> None:
    """Raises: ConfigError for settings that contradict each other or would be ignored."""
    own, chosen = config.critique, config.select
    revises = own.passes > 0 and own.revise
    select.check(chosen)
    if own.passes > 1 and not own.revise:
        raise ConfigError("critique.passes counts revisions; with critique.revise = false it is 1")
    if own.passes:
        critique_templates(config)
        critique_settings(config)
    for wanted, what in (
        (config.evaluate.revise != "off", f"evaluate.revise {config.evaluate.revise}"),
        (config.cycle.rounds > 0 and chosen.learn != "answers", f"select.learn {chosen.learn}"),
        (config.cycle.rounds > 0 and chosen.candidates == "revisions", "select.candidates revisions"),
    ):
        if wanted and not revises:
            raise ConfigError(f"{what} needs revisions: set critique.passes, and critique.revise = true")
    if config.resample.groups and own.passes:
        raise ConfigError("resample: further answers are not criticised; set critique.passes = 0")
    if config.resample.groups and chosen.strategy not in ("pairs", "groups"):
        raise ConfigError("resample is for select.strategy pairs and groups, which need rewards that differ")
    if config.rationalise.n and chosen.strategy == "groups":
        raise ConfigError("rationalise: what a hint led to is no draw of the policy, as groups must be")


def check_policy(expected: str, found: Iterable[Any], where: str) -> None:
    """Rows must come from the policy this round starts from: a loop that keeps sampling the old model learns
    nothing new for ever. Raises: RunFolderError."""
    for row in found:
        if row.policy and row.policy != expected and row.finish_reason != "error":
            raise RunFolderError(
                f"{where}: row {row.id} was sampled by policy {row.policy[:16]}, this round's is "
                f"{expected[:16]}; delete the file to sample again"
            )


def ring(work: Work, place: int | Literal["final"], stage: str, found: Iterable[Alarm]) -> None:
    """Alarms of a stage: into the events and on the screen."""
    where = place if place == "final" else f"round {place}"
    for one in found:
        told = {"alarm": one.name, "value": one.value, "limit": one.limit}
        work.run.events.append("alarm", round=place, stage=stage, **told)
        work.watch.say(f"{where} {stage} {one.reason}")
