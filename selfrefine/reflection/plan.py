"""The plan of the next round, and what became of the earlier ones. Pure: figures in, a plan out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from msgspec.structs import replace

from selfrefine.records import Sample
from selfrefine.reflection import rules
from selfrefine.reflection.facts import Facts, mean, measured, never_right, truncated
from selfrefine.reflection.failures import failed, kind_of
from selfrefine.reflection.findings import (
    Action,
    ActionKind,
    Cell,
    FailureKind,
    Outcome,
    Plan,
    Target,
    Weaknesses,
)
from selfrefine.reflection.slices import holds

KEPT: tuple[ActionKind, ...] = ("sample-more", "temperature", "longer", "lower-lr", "replay", "rationalise")
"""Actions that are taken again with the same settings once their number has moved: what called for them is
gone because they act."""


def plan(
    found: Weaknesses, facts: Facts, *, index: int, mode: Literal["auto", "suggest"], tokens: int = 0
) -> Plan:
    """The actions for round `index`, at most one of a kind, each with its reason and its number.

    An action whose number did not move twice in a row is dropped, and so is what the run cannot do; `dropped`
    says why. Where the plan is to stop, it is the only action.
    """
    dropped = _dropped(facts)
    stop = rules.stop(found, facts)
    actions: dict[ActionKind, Action] = {} if stop is None else {"stop": stop}
    if stop is None:
        for rule in rules.RULES:
            action = rule(found, facts)
            if action is None or action.kind in dropped:
                continue
            if action.kind in rules.COSTLY and any(kind in actions for kind in rules.COSTLY):
                continue
            actions[action.kind] = action
        for again in _kept(facts):
            if again.kind not in actions and again.kind not in dropped:
                actions[again.kind] = again
        if mode == "suggest":
            for kind in rules.candidates(found, facts):
                actions[kind] = _untried(kind, found, facts)
    return Plan(
        round=index,
        mode=mode,
        actions=tuple(actions.values()),
        outcomes=facts.outcomes,
        dropped=dict(sorted(dropped.items())),
        hints=tuple(
            {
                "kind": one.kind,
                "text": one.text,
                "tasks": one.tasks,
                "without": one.without,
                "with": one.with_,
                "p_value": one.p_value,
                "better": one.better,
            }
            for one in facts.trials
        ),
        tokens=tokens,
    )


def _untried(kind: ActionKind, found: Weaknesses, facts: Facts) -> Action:
    why = "not measured: with plan auto it is tried on training tasks first, and used only if it is better"
    target = Target(figure="gate.mean", split="gate", direction="up", before=facts.gate_mean)
    return Action(kind=kind, reason=why, target=target, settings=rules.candidate_settings(kind, found, facts))


def _dropped(facts: Facts) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in get_args(ActionKind):
        if (why := rules.impossible(kind, facts)) is not None:
            found[kind] = why
        elif facts.failed_twice(kind):
            rounds = [str(one.round) for one in facts.outcomes if one.kind == kind and one.moved is False]
            found[kind] = f"failed twice (rounds {', '.join(rounds[-2:])}): its number did not move"
    return found


def _kept(facts: Facts) -> list[Action]:
    """Of the last round's plan, those whose number moved, with the figure they now start from."""
    last = len(facts.rounds) - 1
    if not facts.plans or facts.plans[-1].round != last:
        return []
    after = {one.kind: one.after for one in facts.outcomes if one.round == last and one.moved}
    return [
        replace(
            action,
            reason=f"it helped in round {last}: {_moved(action.target, after[action.kind])}",
            target=replace(action.target, before=after[action.kind]),
        )
        for action in facts.plans[-1].actions
        if action.kind in KEPT and action.kind in after
    ]


def judged(
    before: Plan, weaknesses: Weaknesses, gate: Sequence[Sample], train: Sequence[Sample], passing: float
) -> list[Outcome]:
    """What became of a plan's numbers in its round.

    weaknesses: those that the plan was made from, which hold the slices by name. gate: the answers of that
    round's candidate to the gate tasks, whether it was kept or not; train: the round's scored samples.
    """
    if before.mode != "auto":
        return []
    cells = {(split, cell.name): cell for split in ("gate", "train") for cell in getattr(weaknesses, split)}
    rows = {"gate": gate, "train": train}
    found = []
    for action in before.actions:
        if action.kind == "stop":
            continue
        target = action.target
        after, why = figure(target, rows[target.split], cells, passing)
        moved = None
        if after is not None and target.before is not None:
            up = target.direction == "up"
            moved = after > target.before + 1e-9 if up else after < target.before - 1e-9
        elif not why:
            why = "it was not known before the round"
        found.append(
            Outcome(round=before.round, kind=action.kind, target=target, after=after, moved=moved, why=why)
        )
    return found


def figure(
    target: Target, rows: Sequence[Sample], cells: Mapping[tuple[str, str], Cell], passing: float
) -> tuple[float | None, str]:
    """The number that a target names, over these rows; null with the reason where it cannot be computed."""
    drafts = [row for row in rows if row.parent_id is None]
    if not drafts:
        return None, f"the round has no {target.split} answers"
    name = target.figure
    if name == "gate.mean":
        value = mean(drafts)
    elif name == "never right":
        value = never_right(drafts, passing)
    elif name == "cut off":
        value = truncated(drafts)  # as `Facts.truncated`: a loop that ran into the limit, too
    elif name in get_args(FailureKind):
        value = failing(drafts, name, passing)
    else:
        cell = cells.get((target.split, name))
        if cell is None or cell.slice is None:
            return None, "the slice is not among the weaknesses that the plan was made from"
        own = [rate for task, rate in measured(drafts) if holds(cell.slice, task)]
        value = sum(own) / len(own) if own else None
    return value, "" if value is not None else "none of its answers has a score"


def failing(rows: Sequence[Sample], kind: str, passing: float) -> float | None:
    """The share of the scored answers that fail in this way."""
    known = [row for row in rows if row.reward is not None or failed(row, passing)]
    return sum(kind_of(row, passing) == kind for row in known) / len(known) if known else None


def sentence(one: Outcome) -> str:
    """An outcome as a person reads it."""
    verdict = {True: "moved", False: "did not move", None: f"is not known ({one.why})"}[one.moved]
    return f"round {one.round} {one.kind}: {_moved(one.target, one.after)}, {verdict}"


def _moved(target: Target, after: float | None) -> str:
    before, now = ("–" if value is None else f"{value:.3f}" for value in (target.before, after))
    return f"{target.figure} ({target.split}) {before} → {now}"
