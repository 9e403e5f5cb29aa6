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

from selfrefine.gating import gate, guards, probe
from selfrefine.gating.comparison import compared
from selfrefine.records import GateDecision, Guard, RoundSummary, Sample, groups
from selfrefine.runfolder.round import RoundDir
from selfrefine.stages.work import Work, build_rewards, evaluate_settings
from selfrefine.steps import reward
from selfrefine.steps.evaluate import evaluate, per_task

Matrix = dict[str, dict[str, float | None]]


class Watched(Struct, frozen=True, kw_only=True):
    """What goes into round.json beside the decision."""

    guards: tuple[Guard, ...]
    probe: Matrix


def start(work: Work) -> Watched:
    """The starting policy's figures: what later rounds are compared with."""
    held = _rows(work.run.round(0), "gate")
    row = _probe(work, 0, None) | probe.sources(held)
    return Watched(guards=tuple(guards.answers(held, {}, work.config.guards)), probe=row)


def watch(work: Work, k: int) -> Watched:
    """The guards of round k's candidate."""
    run, folder, settings = work.run, work.run.round(k), work.config.guards
    began = time.monotonic()
    held = _rows(folder, "gate")
    row = _probe(work, k, folder.adapter) | probe.sources(held)
    first = run.summary(1) if k > 1 else None
    found = [
        *guards.answers(held, _figures(run.summary(0)), settings),
        *guards.drawn(_rows(folder, "generate"), _figures(first), settings),
        guards.correlation(_rows(folder, "reward"), settings),
        *guards.forgetting(row, run.summary(0).probe, run.summary(run.accepted_round).probe, settings),
        *_gold(work, k, held),
    ]
    run.events.append("guards", round=k, seconds=round(time.monotonic() - began, 3))
    return Watched(guards=tuple(found), probe=row)


def decide(work: Work, k: int, found: tuple[Guard, ...]) -> GateDecision:
    """Round k's candidate against the accepted policy."""
    run, settings, seed = work.run, work.config.gate, work.config.seed
    alpha = gate.spends(settings.alpha, k, planned(work))
    before, after = (_rows(folder, "gate") for folder in (run.round(run.accepted_round), run.round(k)))
    level = 0.95 if settings.mode == "off" else 1 - alpha
    measured = compared(before, after, work.measures, seed=seed, level=level, alternative="greater")
    looks = 0 if settings.mode == "off" or not measured.n else looks_before(work, k) + 1
    return gate.decide(measured, settings.mode, alpha, found, looks)


def tell(work: Work, k: int, decision: GateDecision, found: tuple[Guard, ...]) -> None:
    """The decision, the guards' warnings and the wear of the gate tasks: on the screen and in the events."""
    work.run.events.append("gate", round=k, outcome=decision.outcome, reason=decision.reason)
    work.watch.say(f"round {k} {decision.reason}")
    warnings = [guard.reason for guard in found if guard.state != "ok" and guard.reason]
    own = work.config.gate
    if worn := gate.worn(decision.looks, decision.n, own.alpha, own.wear):
        warnings.append(worn)
    for reason in warnings:
        work.run.events.append("warning", round=k, reason=reason)
        work.watch.say(f"round {k} warning: {reason}")


def planned(work: Work) -> int:
    """The rounds the run was made for; a command that extends it does not change what was spent."""
    return int(work.run.manifest.config["cycle"]["rounds"])


def opening(work: Work) -> str | None:
    """What the gate can show in this run, once round 0 has been measured."""
    own, folder = work.config.gate, work.run.round(0)
    values = list(per_task(_rows(folder, "gate")).values())
    alone = work.measures[0] if len(work.measures) == 1 else None
    corpus = alone.name if alone is not None and alone.corpus is not None else None
    return gate.opening(values, own.mode, own.alpha, planned(work), corpus)


def looks_before(work: Work, k: int) -> int:
    """How often the gate tasks have decided in the rounds before k."""
    found = [work.run.summary(j).gate for j in range(1, k)]
    return max((one.looks for one in found if one is not None), default=0)


def _gold(work: Work, k: int, held: list[Sample]) -> list[Guard]:
    if work.config.guards.gold is None:
        return []
    scorers = build_rewards(work.config, [work.config.guards.gold], work.engine)
    accepted = _rows(work.run.round(work.run.accepted_round), "gate")
    before, after = (reward.score(rows, scorers) for rows in (accepted, held))
    found = compared(before, after, scorers, seed=work.config.seed, alternative="greater")
    return [guards.gold(scorers[0].name, found, work.config.guards)]


def _probe(work: Work, k: int, adapter: Path | None) -> Matrix:
    """General prompts and earlier rounds' lessons under base + adapter; nothing where the probe is off."""
    if not work.config.guards.probe:
        return {}
    work.be(adapter)
    earlier = {
        folder.path.name: _imitated([row for row in folder.samples("selected") if row.round == folder.index])
        for folder in map(work.run.round, range(1, k + 1))
        if folder.has("selected")
    }
    found = probe.lessons(work.engine, earlier, work.config.seed)
    for name, cell in _answered_again(work, earlier).items():
        found[name] = found.get(name, {}) | cell
    return {"general": probe.general(work.engine)} | found


def _answered_again(work: Work, earlier: Mapping[str, list[Sample]]) -> Matrix:
    """`mean` reward of greedy answers to a few tasks of each earlier round, and how many `tasks` that are."""
    asked = probe.tasks(earlier, work.config.seed)
    settings = replace(evaluate_settings(work.config), n=1)
    settings = replace(settings, temperature=0.0)
    # All in one pass; a task that several rounds learnt from is asked once.
    unique = list({task.id: task for tasks in asked.values() for task in tasks}.values())
    rows = evaluate(
        unique,
        work.engine,
        settings,
        work.measures,
        work.config.seed,
        stage="probe",
        gate_on=work.gate_on,
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
