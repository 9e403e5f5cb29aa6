"""One suggestion after a round, from its figures: how this run goes on, or what another run should change.

A run's settings are frozen, but for how long it goes on. So a rule either names flags that `cycle --run`
takes, or settings for another run, as flags of the command that starts one. Each rule checks that its flags
will not be refused: a value that does not fit (more gate tasks than there are) is no advice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from selfrefine.config import Config, CycleConfig
from selfrefine.objectives import OBJECTIVES
from selfrefine.reflection.findings import PLAN_FILE
from selfrefine.runfolder.ends import going_on, rejected_in_a_row, stop
from selfrefine.runfolder.jsonl import read_json
from selfrefine.runfolder.summaries import GateDecision, RoundSummary
from selfrefine.words import count

NOTHING_LEFT = 0.98
"""Mean on the gate tasks from which on there is nothing to gain that these tasks could show."""
CUT_OFF = 0.25
"""Share of held-out answers cut off from which on length is what stands in the way."""
FLAT = 0.9
"""Share of prompts without a better and a worse answer from which on a round learns from next to nothing."""
FEW_ROWS = 32
"""Answers learnt from in a round, below which a rejection says little about the method."""
LITTLE = 0.5
"""Share of the learnt answers that pass the measure, below which another thing is paid for."""


class Suggestion(Struct, frozen=True, kw_only=True):
    """`why` is a sentence without its full stop. `flags` are words of a command line, not quoted:
    continue: `selfrefine cycle --run RUN FLAGS`; another-run: of the command that starts one (empty where no
    flag says it); plan: the next round's plan has it; none: there is nothing to type."""

    kind: Literal["continue", "another-run", "plan", "none"]
    why: str
    flags: tuple[str, ...] = ()


class Facts(Struct, frozen=True, kw_only=True):
    """What the rules go by; null where a round has no such figure."""

    config: Config
    cycle: CycleConfig
    """How long the running command goes on."""
    summaries: Sequence[RoundSummary]
    """Up to the round that is looked at, round 0 first."""
    origins: Mapping[str, str] = {}
    train_tasks: int = 0
    gate_tasks: int = 0
    flat: float | None = None
    """Share of the prompts whose answers all have the same reward."""
    mean: float | None = None
    """Of the training reward over the round's samples, where there is one."""
    learnt: int | None = None
    passing: float | None = None
    """Share of the learnt answers that pass the measure."""
    gate_truncated: float | None = None
    plan: tuple[str, ...] = ()
    """Kinds of the actions that are planned for the next round."""
    plans: bool = False
    """The run plans each round before it begins."""


def planned(folder: Path) -> tuple[str, ...]:
    """What the plan of the round in `folder` does, in a word each. Raises: RunFolderError: it is damaged."""
    told = read_json(folder / PLAN_FILE, dict[str, Any]) or {}
    actions = told.get("actions") or []
    return tuple(str(one["kind"]) for one in actions if isinstance(one, dict) and "kind" in one)


def suggest(facts: Facts) -> Suggestion:
    """The first rule that has something to say."""
    own = facts.summaries[-1].gate
    if facts.plan:
        return Suggestion(
            kind="plan", why=f"the plan for round {len(facts.summaries)}: {', '.join(facts.plan)}"
        )
    if facts.plans and not _ended(facts):
        why = f"round {len(facts.summaries)} begins with a plan that is made from these figures"
        return Suggestion(kind="plan", why=why)
    if not facts.gate_tasks or own is None or not own.n:
        return _unmeasured(facts)
    rules = (_nothing_left, _vetoed, _cut_off, _rejected, _undecided_for_long)
    found = next((said for rule in rules if (said := rule(facts, own)) is not None), None)
    return found or _going_on(facts, own)


def _unmeasured(facts: Facts) -> Suggestion:
    if facts.gate_tasks:
        return Suggestion(kind="none", why="no gate task was scored under both policies")
    why = "there are no gate tasks, so nothing says whether a round helped"
    if facts.config.tasks.gate_file is not None or facts.train_tasks < 2 * _FEWEST_GATE:
        return Suggestion(kind="none", why=why)
    return Suggestion(kind="another-run", why=why, flags=("--set", "tasks.gate=0.2"))


_FEWEST_GATE = 10


def _nothing_left(facts: Facts, own: GateDecision) -> Suggestion | None:
    after = own.after or 0.0
    if own.outcome != "accept" or after < NOTHING_LEFT:
        return None
    why = f"{after:.3f} on the gate tasks: these tasks have nothing left to gain"
    if _ended(facts):
        return Suggestion(kind="another-run", why=f"{why}; harder tasks would", flags=())
    flags = ("--until", f"{math.floor(after * 100) / 100:g}")
    return Suggestion(kind="continue", why=f"{why}; stop it with Ctrl-C, and this ends it", flags=flags)


def _vetoed(facts: Facts, own: GateDecision) -> Suggestion | None:
    vetoes = [guard.name for guard in facts.summaries[-1].guards if guard.state == "veto"]
    if own.outcome != "reject" or not vetoes or own.difference is None:
        return None
    return _later(facts, f"a guard vetoed ({', '.join(vetoes)}): smaller steps forget less", _slower(facts))


def _cut_off(facts: Facts, own: GateDecision) -> Suggestion | None:
    share = facts.gate_truncated or 0.0
    if share < CUT_OFF:
        return None
    now = facts.config.evaluate.max_new_tokens
    flags = ["--set", f"generate.max_new_tokens={2 * facts.config.generate.max_new_tokens}"]
    if now is not None:
        flags += ["--set", f"evaluate.max_new_tokens={2 * now}"]
    return _later(facts, f"{100 * share:.0f} % of the held-out answers are cut off", tuple(flags))


def _rejected(facts: Facts, own: GateDecision) -> Suggestion | None:
    if own.outcome != "reject":
        return None
    config, n = facts.config, facts.config.generate.n
    if OBJECTIVES.get(config.objective.name).teacher is not None:  # it has no use for rewards
        return _later(facts, "what it learnt made it no better: smaller steps may", _slower(facts))
    if (facts.flat or 0.0) >= FLAT and facts.mean is not None:
        share = f"{100 * (facts.flat or 0.0):.0f} % of the prompts"
        if facts.mean >= 0.5:
            why = f"for {share} all answers are equally good: the training tasks teach no more"
            return _later(facts, f"{why}; harder ones would", ())
        why = f"for {share} no answer is better than another: more samples find some"
        return _later(facts, why, ("--set", f"generate.n={2 * n}"))
    if facts.passing is not None and facts.passing < LITTLE and (flags := _train_on_measure(facts)):
        why = f"only {100 * facts.passing:.0f} % of the learnt answers pass the measure: train on it"
        return _later(facts, why, flags)
    wanted = 2 * config.cycle.prompts_per_round
    if facts.learnt is not None and facts.learnt < FEW_ROWS and facts.train_tasks >= wanted:
        why = f"it learnt from {count(facts.learnt, 'answer')} only"
        return _later(facts, why, ("--set", f"cycle.prompts_per_round={wanted}"))
    return _later(facts, "what it learnt made it no better: smaller steps may", _slower(facts))


def _undecided_for_long(facts: Facts, own: GateDecision) -> Suggestion | None:
    """Small gains add up from round to round; where two did not suffice, the tasks are too few to tell."""
    before = facts.summaries[-2].gate
    if own.outcome != "undecided" or before is None or before.outcome != "undecided":
        return None
    tasks, wanted = facts.config.tasks, 2 * facts.gate_tasks
    spare = facts.train_tasks - facts.gate_tasks - facts.config.cycle.prompts_per_round
    if tasks.gate_file is not None or tasks.train is not None or spare < 0:
        return None
    tasks_said = count(facts.gate_tasks, "gate task")
    why = f"two rounds in a row are undecided: {tasks_said} cannot show so small a gain"
    return _later(facts, why, ("--set", f"tasks.gate={wanted}"))


def _going_on(facts: Facts, own: GateDecision) -> Suggestion:
    k = len(facts.summaries) - 1
    if not _ended(facts):
        come = {
            "accept": f"nothing to change: round {k + 1} goes on from this policy",
            "undecided": f"nothing to change: round {k + 1} goes on from this candidate; small gains add up",
        }
        return Suggestion(kind="none", why=come.get(own.outcome, f"round {k + 1} follows"))
    gained = own.difference is not None and own.difference > 0
    why = f"round {k} still gained ({own.difference:+.3f})" if gained else f"round {k} was the last"
    flags = going_on(facts.config.cycle, facts.summaries)
    if flags is not None:
        return Suggestion(kind="continue", why=f"{why}; another round", flags=tuple(flags))
    longer = _longer(facts)
    if longer is None:
        return Suggestion(kind="none", why=f"it ends here: {stop(facts.cycle, facts.summaries)}")
    return Suggestion(kind="continue", why=f"{why}; to go on", flags=longer)


def _longer(facts: Facts) -> tuple[str, ...] | None:
    """The flags that lift every limit which may be lifted, or None: the patience is frozen."""
    own, done = facts.config.cycle, facts.summaries
    spent = sum(one.cost.spent for one in done)
    lifted, flags = replace(own, rounds=max(own.rounds, len(done))), []
    if not own.rounds:
        return None
    if lifted.rounds != own.rounds:
        flags += ["--rounds", str(lifted.rounds)]
    if own.max_tokens is not None and spent >= own.max_tokens:
        lifted = replace(lifted, max_tokens=2 * spent)
        flags += ["--set", f"cycle.max_tokens={2 * spent}"]
    reached = done[done[-1].accepted_round].measures.get("gate")
    if own.until is not None and reached is not None and (reached.mean or 0.0) >= own.until:
        lifted = replace(lifted, until=1.0)
        flags += ["--until", "1"]
    return tuple(flags) if stop(lifted, done) is None else None


def _ended(facts: Facts) -> bool:
    return stop(facts.cycle, facts.summaries) is not None


def _later(facts: Facts, why: str, flags: tuple[str, ...]) -> Suggestion:
    """For another run. Where this one goes on, and has not failed twice, it may yet come good."""
    own = facts.summaries[-1].gate
    first = own is not None and own.outcome == "reject" and rejected_in_a_row(facts.summaries) == 1
    if first and not _ended(facts):
        why += f"; if round {len(facts.summaries)}, which has other prompts, is no better either"
    return Suggestion(kind="another-run", why=why, flags=flags)


def _slower(facts: Facts) -> tuple[str, ...]:
    rate = facts.config.train.lr
    return ("--set", f"train.lr={rate / 2:g}") if rate else ()


def _train_on_measure(facts: Facts) -> tuple[str, ...]:
    """Nothing where a recipe is about its own reward: another one is refused there."""
    measure = facts.config.evaluate.measure
    if not measure or facts.origins.get("reward.use") == "recipe":
        return ()
    return tuple(word for name in measure for word in ("-r", name))
