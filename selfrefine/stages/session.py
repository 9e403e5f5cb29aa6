"""What a command works with: configuration, models and rewards, each made when it is first asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import msgspec

from selfrefine.config import Config
from selfrefine.engines.base import Engine
from selfrefine.errors import RunFolderError
from selfrefine.judging import MODELS
from selfrefine.memory import Memory, PlanChange
from selfrefine.records import Sample
from selfrefine.reflection.findings import Plan
from selfrefine.registry import files_used
from selfrefine.rewards import REWARDS
from selfrefine.rewards.base import Scorer
from selfrefine.runfolder.manifest import NO_TEMPLATE
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import Run
from selfrefine.stages.alarms import Alarm
from selfrefine.stages.progress import Reporter
from selfrefine.steps import critics, reward, scoring
from selfrefine.steps.critics import Teller
from selfrefine.steps.jury import Member

Place = int | Literal["final"]


@dataclass
class Session:
    """`load` and `load_critic` give the models; a critic of None is the policy itself.

    Lazily, so that bad input is refused before a model is loaded, and what asks none loads none.
    """

    config: Config
    reporter: Reporter
    load: Callable[[], Engine]
    load_critic: Callable[[], Engine | None] = lambda: None
    plan: Plan | None = None
    """The one that a round's stages follow now (`stages.planned`); `config` has its settings then."""

    @cached_property
    def engine(self) -> Engine:
        return self.load()

    @cached_property
    def critic(self) -> Engine:
        found = self.load_critic() or self.engine
        if self.config.critique.verdict == "scored" and "score" not in found.capabilities:
            who = found.facts().model["id"]
            self.reporter.say(
                f"critique.verdict = scored: {who} gives no probabilities of given texts, so verdicts are "
                "parsed from what it writes"
            )
        return found

    @cached_property
    def scorers(self) -> tuple[Scorer, ...]:
        """The rewards that are trained on."""
        return self.rewards(scoring.trained_specs(self.config))

    @cached_property
    def measures(self) -> tuple[Scorer, ...]:
        """The rewards that measure held-out answers."""
        return self.rewards(scoring.measuring_specs(self.config))

    @cached_property
    def tell(self) -> Teller | None:
        """The rewards whose details are the critique; None where a model criticises, and where several
        critics do. Raises: ConfigError."""
        own = self.config.critique
        return None if own.critics else self._teller(own.source)

    @cached_property
    def critics(self) -> tuple[Member, ...]:
        """Those that vote; none where there is one alone. Raises: ConfigError."""
        return tuple(Member(who, self._teller(who)) for who in self.config.critique.critics)

    def _teller(self, source: str) -> Teller | None:
        if source in (*MODELS, "rewards"):
            return critics.own_rewards if source == "rewards" else None
        asks = reward.needs_engine([reward.parse_spec(source)])
        engine = self.engine if asks else None
        [scorer] = scoring.build_rewards(self.config, [source], engine, folder=self.prompts_dir, texts=True)
        return lambda rows: [(found,) for found in scorer.score(rows)]

    def rewards(self, specs: Sequence[str]) -> tuple[Scorer, ...]:
        """Built with the engine, where one of them asks a model. Raises: ConfigError."""
        asks = reward.needs_engine(map(reward.parse_spec, specs))
        engine = self.engine if asks else None
        return scoring.build_rewards(self.config, specs, engine, folder=self.prompts_dir)

    def gate_among(self, scorers: Sequence[Scorer]) -> str | None:
        """The gating reward of rows that these score; one that is not among them is refused when they do."""
        return self.config.reward.gate_on

    def scored(self, rows: Sequence[Sample]) -> list[Sample]:
        """Rows with the rewards that are trained on."""
        gate_on = self.gate_among(self.scorers)
        return reward.score(rows, self.scorers, gate_on, invert=self.config.reward.invert)

    def measured(self, rows: Sequence[Sample]) -> list[Sample]:
        """Rows with the rewards that measure."""
        return reward.score(rows, self.measures, self.gate_among(self.measures))

    @property
    def scores(self) -> bool:
        """Are rewards asked for? A critique works without."""
        return bool(self.config.reward.use)

    @property
    def prompts_dir(self) -> Path | None:
        """Where a run keeps its own copies of the templates."""
        return None

    @property
    def has_template(self) -> bool | None:
        """Has the model a chat template? None: not known, because no model is loaded or it is not asked."""
        facts = self.engine.facts() if "engine" in vars(self) else None
        return has_template(facts.chat_template_sha256 if facts else "")


def has_template(sha256: str) -> bool | None:
    """From what a manifest says of it; an engine that knows no templates says nothing."""
    return sha256 != NO_TEMPLATE if sha256 else None


_NOT_SET = Path("\0")
"""A path no adapter has: the first `use_policy` always sets the policy."""


@dataclass
class RunSession(Session):
    """One process's work on one run."""

    run: Run = field(kw_only=True)
    adapter: Path | None = _NOT_SET
    """What the engine's policy is now; set through `use_policy` only."""

    @property
    def prompts_dir(self) -> Path | None:
        return self.run.prompts_dir

    @property
    def has_template(self) -> bool | None:
        return has_template(self.run.manifest.chat_template_sha256)

    def __post_init__(self) -> None:
        self._files = files_used(self.config)

    def check_files(self) -> None:
        """The user's files are read again where they are used again. Raises: RunFolderError after an edit."""
        now = files_used(self.config)
        if edited := [path for path, sha256 in self._files.items() if now[path] != sha256]:
            raise RunFolderError(
                f"{', '.join(edited)} was edited while the run was working: restore it and run the command "
                "again, or start a new run"
            )

    @property
    def scores(self) -> bool:
        return True  # by the measure, where nothing else is trained on

    def gate_among(self, scorers: Sequence[Scorer]) -> str | None:
        """Where it is among these: a recipe may train on another reward than measures."""
        return scoring.gate_among(scorers, self.config)

    @property
    def first_adapter(self) -> Path | None:
        """The adapter of the starting policy; None where that is the bare model."""
        return Path(self.config.adapter) if self.config.adapter else None

    def use_policy(self, adapter: Path | None) -> None:
        """Make base + adapter (None: the starting policy) the engine's policy, unless it is already."""
        wanted = adapter or self.first_adapter
        if wanted != self.adapter:
            self.engine.use_adapter(wanted)
        self.adapter = wanted

    def forget_policy(self) -> None:
        """Before training: what the engine's policy is afterwards depends on how far it came."""
        self.adapter = _NOT_SET

    @property
    def self_measured(self) -> bool:
        return any(REWARDS.get(scorer.name).judge != "outside" for scorer in self.measures)

    def check_policy(self, rows: Iterable[Sample], where: Path) -> None:
        """Rows must come from the policy the engine is at: a loop that keeps sampling the old model learns
        nothing new for ever. Raises: RunFolderError."""
        expected = self.engine.policy
        for row in rows:
            if row.policy and row.policy != expected and row.finish_reason != "error":
                raise RunFolderError(
                    f"{where}: row {row.id} was sampled by policy {row.policy[:16]}, but this round's policy "
                    f"is {expected[:16]}; delete the file to sample again"
                )

    def read(self, folder: RoundDir, name: str) -> list[Sample]:
        """A finished stage's rows, sampled by the current policy. Raises: RunFolderError."""
        self.use_policy(self.run.current_adapter)
        rows = list(folder.samples(name))
        self.check_policy(rows, folder.file(name))
        return rows

    @contextmanager
    def timed(self, place: Place, stage: str) -> Iterator[None]:
        """A stage's beginning, end and seconds, in events.jsonl."""
        began = time.monotonic()
        self.run.events.append("stage-begin", round=place, stage=stage)
        yield
        seconds = round(time.monotonic() - began, 3)
        self.run.events.append("stage-end", round=place, stage=stage, seconds=seconds)

    def ring(self, place: Place, stage: str, found: Iterable[Alarm]) -> None:
        """Alarms of a stage: into the events and on the screen."""
        where = place if place == "final" else f"round {place}"
        for one in found:
            told = {"alarm": one.name, "value": one.value, "limit": one.limit, "reason": one.reason}
            self.run.events.append("alarm", round=place, stage=stage, **told)
            self.reporter.say(f"{where} {stage} {one.reason}")

    def follow_budgets(self) -> None:
        """Give the engines the budgets that fitted before, and write down what memory makes smaller now."""
        plan = self.run.plan()
        if plan:
            shown = ", ".join(f"{work} {tokens:,}" for own in plan.values() for work, tokens in own.items())
            self.reporter.say(
                f"memory ran out earlier in this run: it continues with fewer tokens at once ({shown}), and "
                "a repeat may differ in the last digits"
            )

        def changed(who: str, memory: Memory, change: PlanChange) -> None:
            plan[who] = dict(memory.budgets)
            self.run.keep_plan(plan)
            self.run.events.append("plan-change", engine=who, **msgspec.structs.asdict(change))
            self.reporter.say(change.sentence())

        # The policy comes last: where it is its own critic, one name is enough.
        engines = {"critic": self.critic} if self.config.critique.passes else {}
        for who, engine in (engines | {"policy": self.engine}).items():
            memory = engine.memory
            if memory is not None:  # the scripted engine needs none
                memory.budgets |= plan.get(who, {})
                memory.on_change = partial(changed, who, memory)
