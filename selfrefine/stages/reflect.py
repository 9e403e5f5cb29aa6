"""The stage `reflect`: before a round, what the run fails at, why, and what this round should try.

It looks at the committed rounds before it: gate and training tasks, never the test split. Everything that it
writes follows from their bytes, so a reflection that was killed comes out the same when it is made again;
reflect.json is written last.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from selfrefine import prompts
from selfrefine.config import Config
from selfrefine.engines.base import Engine
from selfrefine.errors import ConfigError
from selfrefine.records import Sample
from selfrefine.reflection import applied, causes, facts, rules
from selfrefine.reflection.facts import Facts
from selfrefine.reflection.findings import (
    CAUSES_FILE,
    PLAN_FILE,
    WEAKNESSES_FILE,
    Outcome,
    Plan,
    Weaknesses,
)
from selfrefine.reflection.plan import judged as outcomes_of
from selfrefine.reflection.plan import plan, sentence
from selfrefine.reflection.weaknesses import find
from selfrefine.runfolder.jsonl import atomic_write, read_json, write_errors
from selfrefine.runfolder.locks import only_one
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import REFLECTION, Run
from selfrefine.runfolder.summaries import Cost, StageCost
from selfrefine.stages import hints
from selfrefine.stages.in_run import formatted, in_run
from selfrefine.stages.planned import plan_of
from selfrefine.stages.progress import shown
from selfrefine.stages.session import RunSession
from selfrefine.stages.settings import right_mark
from selfrefine.steps.in_context import Context


class ReflectSummary(StageCost, frozen=True, kw_only=True):
    """`reflect.json`. `weak`: slices that are significantly so; `moved`: earlier actions whose number did."""

    mode: str
    looked_at: int
    weak: int
    plan: str
    """The kinds of its actions."""
    moved: int
    not_moved: int
    cause_tokens: int


class Seen(Struct, frozen=True, kw_only=True):
    """The rows that a reflection before round `index` looks at."""

    index: int
    gate: tuple[Sample, ...]
    """Of the policy that samples next: the accepted one, or an undecided candidate."""
    train: tuple[Sample, ...]
    """The last round's scored samples; none before round 2."""


class Reflection(Struct, frozen=True, kw_only=True):
    """All that one came to."""

    weaknesses: Weaknesses
    causes: causes.Causes
    plan: Plan


def reflect(session: RunSession, k: int) -> ReflectSummary | None:
    """weaknesses.json, causes.md, plan.json and reflect.json of round k; None where the run plans nothing."""
    if session.config.reflect.plan == "off":
        return None
    folder = session.run.round(k)
    if not folder.has("reflect"):
        _reflect(session, folder, k)
    return folder.stage_summary("reflect", ReflectSummary)


def _reflect(session: RunSession, folder: RoundDir, k: int) -> None:
    config = session.config
    mode: Literal["auto", "suggest"] = "auto" if config.reflect.plan == "auto" else "suggest"
    seen = look(session.run, k)
    with session.timed(k, "reflect"):
        found = weaknesses_of(seen, config)
        folder.put(WEAKNESSES_FILE, formatted(found))
        known = facts_of(session.run, config, seen)
        spent = 0
        if mode == "auto":
            known, spent = _tried(session, folder, k, found, known)
        session.reporter.check()
        critic = _critic(session) if found.heaviest else None
        with session.reporter.stage(f"round {k} causes", None) if critic else nullcontext() as bar:
            asked = shown(critic, bar) if critic and bar else None
            why = causes_of(found, seen, config, asked, session.run)
            if bar:
                bar.finish("")
        folder.put(CAUSES_FILE, why.text.encode())
        made = plan(found, known, index=k, mode=mode, tokens=spent + why.tokens)
        folder.put(PLAN_FILE, formatted(made))
        summary = ReflectSummary(
            cost=Cost(tokens=why.tokens),  # what was tried on training tasks stands in hints.json
            mode=mode,
            looked_at=found.looked_at,
            weak=len(found.heaviest),
            plan=", ".join(action.kind for action in made.actions) or "nothing",
            moved=sum(one.moved is True for one in made.outcomes),
            not_moved=sum(one.moved is False for one in made.outcomes),
            cause_tokens=why.tokens,
        )
        folder.put("reflect.json", formatted(summary))
    _tell(session, k, found, made)


def _critic(session: RunSession) -> Engine | None:
    """As it stands before this round, whatever the engine was used for last."""
    if not session.config.reflect.causes:
        return None
    session.use_policy(session.run.current_adapter)
    return session.critic


def reflected(run: Run, config: Config, critic: Callable[[], Engine | None] | None) -> Reflection:
    """A reflection on a run as it is, for its next round; nothing is sampled, but for causes.

    `critic` is asked for a model only where there is a weakness. Raises: RunFolderError, DataError.
    """
    seen = look(run, run.next_round(), begun=True)
    found = weaknesses_of(seen, config)
    model = critic() if critic is not None and found.heaviest else None
    why = causes_of(found, seen, config, model, run)
    known = facts_of(run, config, seen)
    made = plan(found, known, index=max(1, seen.index), mode="suggest", tokens=why.tokens)
    return Reflection(weaknesses=found, causes=why, plan=made)


def kept(run: Run, made: Reflection) -> Path:
    """Its files in RUN/reflection, each replaced whole. Raises: RunFolderError.

    Without the run's lock, which may be at work meanwhile: nothing that a run does reads them.
    """
    place = run.path / REFLECTION
    with write_errors(place), only_one(place):
        atomic_write(place / WEAKNESSES_FILE, formatted(made.weaknesses))
        atomic_write(place / CAUSES_FILE, made.causes.text.encode())
        atomic_write(place / PLAN_FILE, formatted(made.plan))
    return place


def look(run: Run, k: int, *, begun: bool = False) -> Seen:
    """The rows before round k. `begun`: also what round k itself has scored already, committed or not.

    Raises: RunFolderError, DataError.
    """
    if k < 1:
        return Seen(index=k, gate=(), train=())
    last = run.summary(k - 1)
    policy = last.accepted_round if last.undecided_round is None else last.undecided_round
    trained = run.round(k) if begun and run.round(k).has("reward") else run.round(k - 1)
    return Seen(
        index=k,
        gate=_rows(run.round(policy), "gate"),
        train=(*_rows(trained, "reward"), *_rows(trained, "resampled")),
    )


def weaknesses_of(seen: Seen, config: Config) -> Weaknesses:
    return find(
        seen.gate,
        seen.train,
        after_round=max(0, seen.index - 1),
        seed=config.seed,
        passing=right_mark(config),
    )


def causes_of(
    found: Weaknesses, seen: Seen, config: Config, critic: Engine | None, run: Run | None = None
) -> causes.Causes:
    """With the run's copy of the template, where it has one. Raises: ConfigError, EngineError."""
    own = run.prompts_dir / "causes.md" if run else None
    template = prompts.load(own if own is not None and own.is_file() else "causes", "causes")
    mark = right_mark(config)
    return causes.write(found, seen.gate, seen.train, critic, template, seed=config.seed, passing=mark)


def facts_of(run: Run, config: Config, seen: Seen) -> Facts:
    """What a plan is made from. `config`: the run's own."""
    drafts = [row for row in seen.train if row.parent_id is None]
    mark, known = right_mark(config), facts.has_mark([*drafts, *seen.gate], config)
    plans, outcomes = history(run, config, seen.index)
    committed = run.rounds()[: seen.index]
    found = Facts(
        config=config,
        gate_mean=facts.mean(seen.gate),
        train_mean=facts.mean(drafts),
        truncated=facts.truncated(drafts),
        never=facts.never_right(drafts, mark) if drafts and known else None,
        never_ids=facts.never_ids(drafts, mark) if known else frozenset(),
        varied=facts.varied(drafts),
        measured=facts.measured(drafts or seen.gate),
        examples=facts.own_examples(drafts, mark),
        references=any(any(text.strip() for text in task.references) for task in run.tasks("train")),
        template=(run.prompts_dir / "hint.md").is_file(),
        learnt_before=any(folder.has("selected") for folder in committed),
        rounds=tuple(folder.summary() for folder in committed),
        plans=plans,
        outcomes=outcomes,
    )
    limit = rules.last(found, "generate.max_new_tokens", config.generate.max_new_tokens)
    return msgspec.structs.replace(found, gate_over=facts.over(seen.gate, limit))


def history(run: Run, config: Config, k: int) -> tuple[tuple[Plan, ...], tuple[Outcome, ...]]:
    """The plans that rounds before k followed, and what became of all their actions."""
    told = [one for folder in run.rounds()[1:k] if (one := plan_of(folder)) is not None]
    if not told:
        return (), ()
    return tuple(one for one in told if one.mode == "auto"), (
        *told[-1].outcomes,
        *outcomes_in(run, config, told[-1]),
    )


def outcomes_in(run: Run, config: Config, planned: Plan) -> list[Outcome]:
    """What became of the plan of a committed round."""
    folder = run.round(planned.round)
    found = read_json(folder.path / WEAKNESSES_FILE, Weaknesses)
    if found is None or planned.mode != "auto":
        return []
    train = (*_rows(folder, "reward"), *_rows(folder, "resampled"))
    return outcomes_of(planned, found, _rows(folder, "gate"), train, right_mark(config))


def last_outcomes(session: RunSession) -> None:
    """At the end of a run no reflection follows that would say what became of the last plan: it is said."""
    run = session.run
    last = run.next_round() - 1
    planned = plan_of(run.round(last)) if last > 0 else None
    if run.round(last + 1).has("reflect"):
        return  # its plan ended the run, and it has judged the one before
    for one in outcomes_in(run, session.config, planned) if planned is not None else ():
        run.events.append("outcome", round=one.round, outcome=msgspec.to_builtins(one))
        session.reporter.say(sentence(one))


def _tried(
    session: RunSession, folder: RoundDir, k: int, found: Weaknesses, known: Facts
) -> tuple[Facts, int]:
    """With what the contexts that are worth trying came to, and the tokens that it took.

    Before the first round, when there is no training sample yet, also with what plain samples are like.
    """
    if rules.stop(found, known) is not None:
        return known, 0  # no round follows, so no round.json would count these tokens
    pairs = []
    for kind in rules.candidates(found, known):
        settings = rules.candidate_settings(kind, found, known)
        context = msgspec.convert({"kind": kind, **settings}, Context)
        if _taken(session, context):
            pairs.append((context, rules.text_of(kind, found, known)))
    looks = known.train_mean is None and rules.impossible("temperature", known) is None
    if not pairs and not looks:
        return known, 0
    free = plan(found, known, index=k, mode="auto")  # with the temperature and length that are planned
    settings_of_round = applied.configured(session.config, free).generate
    stage = hints.Hints(session, k, [context for context, _ in pairs], settings_of_round)
    summary = in_run(stage, session, folder)
    assert isinstance(summary, StageCost)
    rows = list(folder.samples("hints"))
    plain = [row for row in rows if row.index == 0]
    if looks:
        known = msgspec.structs.replace(known, train_mean=facts.mean(plain), truncated=facts.truncated(plain))
    trials = hints.judged(rows, pairs, session.config.seed)
    return msgspec.structs.replace(known, trials=trials), summary.cost.tokens


def _taken(session: RunSession, context: Context) -> bool:
    """Whether the model's chat template takes such messages: some refuse a system message."""
    task = session.run.tasks("train")[0]
    try:
        session.engine.encode_chat(context.asked(task, session.config.generate.system).prompt)
    except ConfigError as error:
        session.reporter.say(f"no {context.kind} is tried: {error}")
        return False
    return True


def _tell(session: RunSession, k: int, found: Weaknesses, made: Plan) -> None:
    """What was found, what became of the last plan, and what is planned and why."""
    say, told = session.reporter.say, [one for one in made.outcomes if one.round == k - 1]
    session.run.events.append("plan", **msgspec.to_builtins(made))
    if found.heaviest:
        say(f"round {k} weak: {'; '.join(found.heaviest[:3])}")
    for one in told:
        say(sentence(one))
    for kind, why in made.dropped.items():
        if why.startswith("failed twice"):
            say(f"round {k} plan drops {kind}: {why}")
    verb = "plan" if made.mode == "auto" else "suggestion"
    for action in made.actions:
        say(f"round {k} {verb}: {action.kind}: {action.reason}")
    if not made.actions:
        say(f"round {k} {verb}: nothing to change")


def _rows(folder: RoundDir, name: str) -> tuple[Sample, ...]:
    return tuple(folder.samples(name)) if folder.has(name) else ()
