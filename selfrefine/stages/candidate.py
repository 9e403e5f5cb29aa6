"""Judging a candidate inside a run: the paired comparison, the guards, and the decision they lead to.

Everything is computed from committed rows and from the engine's policies, so that a judgement that was killed
comes out the same when it is made again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import UNSET, Struct
from msgspec.structs import replace

from selfrefine.errors import SelfrefineError
from selfrefine.gating import gate, guards, probe
from selfrefine.gating.comparison import compared
from selfrefine.gating.meanings import asks
from selfrefine.records import Sample, groups
from selfrefine.reflection.diagnosis import diagnosis
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.summaries import GateDecision, Guard, RoundSummary
from selfrefine.stages.session import RunSession
from selfrefine.steps import reward
from selfrefine.steps.evaluate import evaluate, per_task

Matrix = dict[str, dict[str, float | None]]


class Guarded(Struct, frozen=True, kw_only=True):
    """What goes into round.json beside the decision."""

    guards: tuple[Guard, ...]
    probe: Matrix


def start(session: RunSession) -> Guarded:
    """The starting policy's figures: what later rounds are compared with."""
    held = _rows(session.run.round(0), "gate")
    row = _probe(session, 0, None) | probe.sources(held)
    return Guarded(guards=tuple(guards.answers(held, {}, session.config.guards)), probe=row)


def guards_of(session: RunSession, k: int) -> Guarded:
    """The guards of round k's candidate."""
    run, folder, settings = session.run, session.run.round(k), session.config.guards
    began = time.monotonic()
    held = _rows(folder, "gate")
    row = _probe(session, k, folder.adapter) | probe.sources(held)
    first = run.summary(1) if k > 1 else None
    found = [
        *guards.answers(held, _figures(run.summary(0)), settings),
        *guards.drawn(_rows(folder, "generate"), _figures(first), settings),
        guards.correlation(_rows(folder, "reward"), settings),
        *guards.forgetting(row, run.summary(0).probe, run.summary(run.accepted_round).probe, settings),
        *_gold(session, k, held),
    ]
    run.events.append("guards", round=k, seconds=round(time.monotonic() - began, 3))
    return Guarded(guards=tuple(found), probe=row)


def decide(session: RunSession, k: int, found: tuple[Guard, ...]) -> GateDecision:
    """Round k's candidate against the accepted policy."""
    run, settings, seed = session.run, session.config.gate, session.config.seed
    alpha = gate.spends(settings.alpha, k, planned(session))
    before, after = (_rows(folder, "gate") for folder in (run.round(run.accepted_round), run.round(k)))
    level = 0.95 if settings.mode == "off" else 1 - alpha
    measured = compared(before, after, session.measures, seed=seed, level=level, alternative="greater")
    looks = 0 if settings.mode == "off" or not measured.n else looks_before(session, k) + 1
    return gate.decide(measured, settings.mode, alpha, found, looks)


def tell(session: RunSession, k: int, decision: GateDecision, found: tuple[Guard, ...]) -> None:
    """The decision, the guards' warnings and the wear of the gate tasks: on the screen and in the events.
    Then what the round came to."""
    session.run.events.append("gate", round=k, outcome=decision.outcome, reason=decision.reason)
    session.reporter.say(f"round {k} {decision.reason}")
    warnings = [(guard.reason, asks(guard.name)) for guard in found if guard.state != "ok" and guard.reason]
    own = session.config.gate
    if worn := gate.worn(decision.looks, decision.n, own.alpha, own.wear):
        warnings.append((worn, None))
    for reason, meant in warnings:
        session.run.events.append("warning", round=k, reason=reason)
        session.reporter.say(f"round {k} warning: {reason}" + (f"; {meant}" if meant else ""))
    diagnose(session, k)


def diagnose(session: RunSession, k: int) -> None:
    """What round k came to, for a person. The round is committed: nothing here may end the run."""
    try:
        found = diagnosis(session.run, k, asked=session.config.cycle)
    except SelfrefineError as error:
        session.reporter.say(f"round {k}: no diagnosis: {error}")
        return
    session.reporter.diagnosed(found, session.run.called)


def planned(session: RunSession) -> int:
    """The rounds the run was made for; a command that extends it does not change what was spent."""
    return int(session.run.manifest.config["cycle"]["rounds"])


def opening(session: RunSession) -> str | None:
    """What the gate can show in this run, once round 0 has been measured."""
    own, folder = session.config.gate, session.run.round(0)
    values = list(per_task(_rows(folder, "gate")).values())
    alone = session.measures[0] if len(session.measures) == 1 else None
    corpus = alone.name if alone is not None and alone.corpus is not None else None
    return gate.opening(values, own.mode, own.alpha, planned(session), corpus)


def looks_before(session: RunSession, k: int) -> int:
    """How often the gate tasks have decided in the rounds before k."""
    found = [session.run.summary(j).gate for j in range(1, k)]
    return max((one.looks for one in found if one is not None), default=0)


def _gold(session: RunSession, k: int, held: list[Sample]) -> list[Guard]:
    if session.config.guards.gold is None:
        return []
    scorers = session.rewards([session.config.guards.gold])
    accepted = _rows(session.run.round(session.run.accepted_round), "gate")
    before, after = (reward.score(rows, scorers) for rows in (accepted, held))
    found = compared(before, after, scorers, seed=session.config.seed, alternative="greater")
    return [guards.gold(scorers[0].name, found, session.config.guards)]


def _probe(session: RunSession, k: int, adapter: Path | None) -> Matrix:
    """General prompts and earlier rounds' lessons under base + adapter; nothing where the probe is off."""
    if not session.config.guards.probe:
        return {}
    session.use_policy(adapter)
    earlier = {
        folder.path.name: _imitated([row for row in folder.samples("selected") if row.round == folder.index])
        for folder in map(session.run.round, range(1, k + 1))
        if folder.has("selected")
    }
    with session.reporter.stage(f"round {k} probe", None) as bar:
        found = probe.lessons(session.engine, earlier, session.config.seed)
        for name, cell in _answered_again(session, earlier).items():
            found[name] = found.get(name, {}) | cell
        general = probe.general(session.engine)
        bar.finish("")
    return {"general": general} | found


def _answered_again(session: RunSession, earlier: Mapping[str, list[Sample]]) -> Matrix:
    """`mean` reward of greedy answers to a few tasks of each earlier round, and how many `tasks` that are."""
    asked = probe.tasks(earlier, session.config.seed)
    settings = replace(session.config.evaluate.sampled(session.config.generate), n=1)
    settings = replace(settings, temperature=0.0)
    # All in one pass; a task that several rounds learnt from is asked once.
    unique = list({task.id: task for tasks in asked.values() for task in tasks}.values())
    rows = evaluate(
        unique,
        session.engine,
        settings,
        session.measures,
        session.config.seed,
        stage="probe",
        gate_on=session.gate_among(session.measures),
    )
    means = per_task(rows)
    found: Matrix = {}
    for name, tasks in asked.items():
        scored = [value for task in tasks if (value := means[task.id]) is not None]
        if scored:
            found[name] = {"mean": math.fsum(scored) / len(scored), "tasks": float(len(scored))}
    return found


def _imitated(rows: list[Sample]) -> list[Sample]:
    """What a round made more probable: not what a pair or label rejects, nor a group's lower half."""
    kept = [row for row in rows if row.lesson is UNSET or row.lesson.role != "rejected"]
    means = per_task(kept)
    whole = {group[0].task.id for group in groups(kept) if len({row.reward for row in group}) > 1}
    return [row for row in kept if row.task.id not in whole or _above(row.reward, means[row.task.id])]


def _above(reward_of_row: float | None, mean: float | None) -> bool:
    return reward_of_row is not None and mean is not None and reward_of_row > mean


def _figures(summary: RoundSummary | None) -> Mapping[str, float | None]:
    return {guard.name: guard.value for guard in summary.guards} if summary else {}


def _rows(folder: RoundDir, name: str) -> list[Sample]:
    return list(folder.samples(name)) if folder.has(name) else []
