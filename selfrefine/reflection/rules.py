"""The fixed list of what a plan can do: for each kind when it is worth trying, what it sets, why it cannot.

A rule sees figures of the gate and the training tasks only. It returns an action with its reason and the
number that it should move, or None where nothing calls for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from selfrefine.reflection.facts import Facts
from selfrefine.reflection.findings import Action, ActionKind, Cell, Target, Weaknesses
from selfrefine.reflection.mixture import mixture
from selfrefine.reflection.slices import holds
from selfrefine.runfolder.ends import rejected_in_a_row
from selfrefine.steps.critique_outcome import is_right

NEVER = 0.5
"""Share of tasks that are never right from which on more samples, or others, are asked for."""
NOTHING = 0.05
"""Gate mean below which nothing is right, before there is any training sample."""
CUT = 0.1
"""Share of a round's answers that are cut off."""
FAILING = 0.1
"""Share of all answers that fail in one way from which on a hint is worth trying."""
HOT = 0.1
"""Mean reward that samples lose against greedy answers from which on the temperature is too high."""
WANDERS = 0.2
"""Share of samples that are cut off where greedy answers are not, from which on it is too high, too."""
COLD = 0.5
"""Different answers to a prompt, as a share, below which the temperature is too low."""
MOST_SAMPLES, MOST_TEMPERATURE, LEAST_TEMPERATURE = 4, 1.5, 0.3
"""At most so many times the run's own number of samples, and within these temperatures."""
REPLAY, MOST_REPLAY = 0.25, 0.5
LEAST_RATE = 1 / 8
RATIONALISED = 3
STUCK, ENOUGH = 0.9, 10
"""Share of a slice's tasks that are never right, and how many it must have, for the reference to be shown."""
ROOM = 64
"""Tokens of an answer below which there is no room to work a task out."""

REPAIRS = {
    "wrong": "Work the task out step by step, check each step, and only then give the final answer.",
    "unreadable": "End with the final answer alone, in the form that the task asks for.",
    "empty": "Always give an answer.",
    "cut off": "Answer in as few words as the task allows.",
    "repetitive": "Say each thing once, and stop when the answer is complete.",
    "other language": "Answer in the language that the task asks for.",
    "rewards disagree": "Give a right answer in exactly the form that the task asks for.",
    "refused": "The task can be done: do it, and do not decline.",
}
"""A hint for each kind of failure. They are fixed and not written by a model, so a plan can be read."""

Rule = Callable[[Weaknesses, Facts], Action | None]


def stop(found: Weaknesses, facts: Facts) -> Action | None:
    """Where the gate cannot show a gain any more, or every way to a first right answer has failed."""
    if facts.gate_mean is not None and is_right(facts.gate_mean):
        return _action("stop", "every gate task is right: no further gain can be shown", _gate(facts))
    remedies: tuple[ActionKind, ...] = ("sample-more", "hint", "few-shot", "rationalise")
    usable = [kind for kind in remedies if not impossible(kind, facts)]
    stuck = facts.never == 1.0 and usable and all(facts.failed_twice(kind) for kind in usable)
    if not stuck:
        return None
    tried = ", ".join(usable)
    return _action(
        "stop", f"no training task was right, and what can be tried failed twice: {tried}", _nevers(1.0)
    )


def after_reject(found: Weaknesses, facts: Facts) -> Action | None:
    """Replay after a guard's veto, which is about what was forgotten; a lower rate after any other."""
    streak, vetoes = rejected_in_a_row(facts.rounds), facts.vetoed()
    if vetoes and not _no(facts, "replay"):
        share = min(MOST_REPLAY, max(REPLAY, 2 * facts.config.train.replay))
        why = f"the last round was vetoed by {', '.join(vetoes)}: learn again from earlier answers"
        return _action("replay", why, _gate(facts), {"train.replay": share})
    rate = facts.config.train.lr
    if not streak or rate is None or _no(facts, "lower-lr"):
        return None
    times = max(LEAST_RATE, 0.5**streak)
    why = f"the last {'round was' if streak == 1 else f'{streak} rounds were'} rolled back: smaller steps"
    return _action("lower-lr", why, _gate(facts), {"train.lr": rate * times})


def longer(found: Weaknesses, facts: Facts) -> Action | None:
    """Where held-out answers, which may be longer, are: samples that only wander need no more room."""
    share, own = facts.truncated, facts.config.generate.max_new_tokens
    now, most = last(facts, "generate.max_new_tokens", own), facts.held_tokens
    if share is None or share < CUT or (facts.gate_over or 0.0) < CUT or now >= most:
        return None
    settings = {"generate.max_new_tokens": min(most, 2 * now)}
    why = (
        f"{share:.0%} of the last round's answers were cut off at {now} tokens, and {facts.gate_over:.0%} of "
        "the held-out answers are longer"
    )
    target = Target(figure="cut off", split="train", direction="down", before=share)
    return _action("longer", why, target, settings)


def hotter_or_cooler(found: Weaknesses, facts: Facts) -> Action | None:
    """Cooler where greedy answers end, or are right, and samples are not; hotter where samples are alike."""
    own = last(facts, "generate.temperature", facts.config.generate.temperature)
    cooler = {"generate.temperature": max(LEAST_TEMPERATURE, round(0.7 * own, 3))}
    if own > LEAST_TEMPERATURE and facts.config.evaluate.temperature == 0:
        cut, over = facts.truncated or 0.0, facts.gate_over
        if over is not None and cut - over >= WANDERS:
            why = f"{cut:.0%} of the samples are cut off and {over:.0%} of greedy answers: sample cooler"
            target = Target(figure="cut off", split="train", direction="down", before=facts.truncated)
            return _action("temperature", why, target, cooler)
        lost = (facts.gate_mean or 0.0) - (facts.train_mean or 0.0)
        if (
            facts.train_mean is not None
            and facts.same_reward
            and lost > HOT
            and (facts.never or 0.0) >= NEVER
        ):
            greedy, sampled = _figure(facts.gate_mean), _figure(facts.train_mean)
            why = f"greedy answers reach {greedy} and samples {sampled}: sample cooler"
            return _action("temperature", why, _nevers(facts.never), cooler)
    alike = facts.varied is not None and facts.varied < COLD
    if alike and facts.never is not None and facts.never >= NEVER and 0 < own < MOST_TEMPERATURE:
        why = (
            f"{facts.never:.0%} of the tasks are never right, and only {facts.varied:.0%} of the answers to "
            "a task differ: sample hotter"
        )
        hotter = {"generate.temperature": min(MOST_TEMPERATURE, round(1.3 * own, 3))}
        return _action("temperature", why, _nevers(facts.never), hotter)
    return None


def sample_more(found: Weaknesses, facts: Facts) -> Action | None:
    """Where nothing that costs no tokens is left to try: another mixture, another temperature."""
    free: tuple[tuple[ActionKind, Rule], ...] = (("temperature", hotter_or_cooler), ("reweight", reweight))
    for kind, rule in free:
        if not (_no(facts, kind) or facts.failed_last(kind)) and rule(found, facts) is not None:
            return None
    own = facts.config.generate.n
    now = last(facts, "generate.n", own)
    if now >= MOST_SAMPLES * own:
        return None
    settings = {"generate.n": min(MOST_SAMPLES * own, 2 * now)}
    if facts.never is not None:
        if facts.never < NEVER:
            return None
        why = f"no sample was right for {facts.never:.0%} of the last round's tasks: {2 * now} samples each"
        return _action("sample-more", why, _nevers(facts.never), settings)
    if facts.gate_mean is None or facts.gate_mean > NOTHING:
        return None
    why = f"almost nothing is right on the gate tasks ({facts.gate_mean:.3f}): {2 * now} samples each"
    return _action("sample-more", why, _gate(facts), settings)


def rationalise(found: Weaknesses, facts: Facts) -> Action | None:
    """Where own samples do not get there: a whole slice is never right, or more samples did not help.

    It learns the reference where a task's answer is bare.
    """
    if facts.never is None or facts.config.rationalise.n:
        return None
    target, settings = _nevers(facts.never), {"rationalise.n": RATIONALISED}
    if (stuck := _stuck(found, facts)) is not None:
        name, never, tasks = stuck
        why = f"{never} of {tasks} training tasks in `{name}` are never right: show the reference"
        return _action("rationalise", why, target, settings)
    if facts.never < NEVER or not (facts.failed_last("sample-more") or _no(facts, "sample-more")):
        return None
    why = f"{facts.never:.0%} of the tasks are never right, and more samples did not help: show the reference"
    return _action("rationalise", why, target, settings)


def _stuck(found: Weaknesses, facts: Facts) -> tuple[str, int, int] | None:
    """The heaviest weak slice that is nearly never right: name, such tasks, tasks."""
    cells = {cell.name: cell for cell in (*found.gate, *found.train)}
    for name in found.heaviest:
        cut = cells[name].slice
        own = [task.id for task, _ in facts.measured if cut is not None and holds(cut, task)]
        never = sum(key in facts.never_ids for key in own)
        if len(own) >= ENOUGH and never >= STUCK * len(own):
            return name, never, len(own)
    return None


def reweight(found: Weaknesses, facts: Facts) -> Action | None:
    own = mixture(found, facts.measured, facts.config.generate.n)
    if own is None:
        return None
    cells = {cell.name: cell for cell in (*found.train, *found.gate)}  # the gate's, where both have it
    cell = next(cells[name] for name in found.heaviest if cells[name].slice in own.axes)
    often = max(own.parts, key=lambda part: part.weight)
    rarely = min(own.parts, key=lambda part: part.weight)
    easy = often.rate is not None and rarely.rate is not None and often.rate > rarely.rate
    why = f"`{cell.name}` is at {_figure(cell.rate)} and the rest at {_figure(cell.rest)}: " + (
        "easier tasks first, since the hardest teach nothing yet"
        if easy
        else "draw what is weak and can be learnt"
    )
    target = Target(
        figure=cell.name,
        split="gate" if cell.name in {one.name for one in found.gate} else "train",
        direction="up",
        before=cell.rate,
    )
    return _action("reweight", why, target, msgspec.to_builtins(own))


def context(found: Weaknesses, facts: Facts) -> Action | None:
    """The best of the contexts that were tried, if one of them was better; untried ones are suggestions."""
    better = [one for one in facts.trials if one.better]
    if not better:
        return None
    best = max(better, key=lambda one: (one.with_ or 0.0) - (one.without or 0.0))
    p = "" if best.p_value is None else f", p {best.p_value:.3f}"
    why = (
        f"on {best.tasks} training tasks it took the mean reward from {_figure(best.without)} to "
        f"{_figure(best.with_)}{p}"
    )
    return _action(best.kind, why, _gate(facts), candidate_settings(best.kind, found, facts))


RULES: tuple[Rule, ...] = (
    after_reject,
    hotter_or_cooler,
    reweight,
    rationalise,
    longer,
    sample_more,
    context,
)
"""In the order in which a plan lists them; `stop` comes before them all."""
COSTLY: tuple[ActionKind, ...] = ("rationalise", "longer", "sample-more")
"""They raise what a round costs: a plan begins at most one, the first of these."""


def candidates(found: Weaknesses, facts: Facts) -> list[ActionKind]:
    """The contexts that are worth trying now, the likelier one first."""
    kinds: list[ActionKind] = []
    failure, room = _failure(found), facts.config.generate.max_new_tokens
    if failure is not None and not _no(facts, "hint") and (failure.name != "wrong" or room >= ROOM):
        kinds.append("hint")
    if len(facts.examples) > 1 and not _no(facts, "few-shot"):
        kinds.append("few-shot")
    worn = [kind for kind in kinds if _worn(kind, text_of(kind, found, facts), facts)]
    return [kind for kind in kinds if kind not in worn][: facts.config.reflect.hints]


def candidate_settings(kind: ActionKind, found: Weaknesses, facts: Facts) -> dict[str, Any]:
    """As `steps.in_context.Context` takes it."""
    if kind == "hint":
        cell = _failure(found)
        return {"system": REPAIRS[cell.name]} if cell else {}
    return {"examples": [list(pair) for pair in facts.examples]}


def text_of(kind: ActionKind, found: Weaknesses, facts: Facts) -> str:
    """What a trial is known by in later rounds."""
    own = candidate_settings(kind, found, facts)
    return str(own["system"]) if "system" in own else f"{len(facts.examples)} own right answers"


def impossible(kind: ActionKind, facts: Facts) -> str | None:
    """Why an action is not possible in this run; None where it is."""
    on_policy = facts.on_policy
    if kind in ("hint", "few-shot", "rationalise", "temperature") and on_policy is not None:
        return on_policy
    if kind in ("hint", "few-shot") and not facts.config.reflect.hints:
        return "reflect.hints is 0"
    if kind == "rationalise":
        if not facts.references:
            return "the training tasks have no references"
        if not facts.template:
            return "the run has no template for it (prompts/hint.md)"
        if facts.config.rationalise.n:
            return "the run rationalises anyway (rationalise.n)"
    if kind == "longer" and (facts.truncated or 0.0) >= CUT:
        own = facts.config.generate.max_new_tokens
        if facts.held_tokens <= own:
            return (
                f"held-out answers are cut at {facts.held_tokens} tokens, too, so longer ones could not "
                f"count: start another run with generate.max_new_tokens={2 * own}"
            )
    if kind == "replay" and not facts.learnt_before:
        return "there are no answers of earlier rounds to learn again"
    if kind == "temperature" and facts.config.generate.temperature == 0:
        return "the run samples greedily"
    return None


def last(facts: Facts, key: str, own: Any) -> Any:
    """The value of a setting in the last round: that of its plan, or the run's own."""
    if facts.plans and facts.plans[-1].round == len(facts.rounds) - 1:
        for action in facts.plans[-1].actions:
            if key in action.settings:
                return action.settings[key]
    return own


def _no(facts: Facts, kind: ActionKind) -> bool:
    return facts.failed_twice(kind) or impossible(kind, facts) is not None


def _worn(kind: ActionKind, text: str, facts: Facts) -> bool:
    """Tried in two rounds and no better in either: further trials cost tokens and invite a lucky one."""
    tried = [one for plan in facts.plans for one in plan.hints if (one["kind"], one["text"]) == (kind, text)]
    return sum(not one["better"] for one in tried) >= 2


def _failure(found: Weaknesses) -> Cell | None:
    """The commonest way to fail; of the training samples, where there are any."""
    for cells in (found.train, found.gate):
        own = [c for c in cells if c.by == "failure" and (c.rate or 0.0) >= FAILING and c.name in REPAIRS]
        if own:
            return max(own, key=lambda cell: (cell.rate or 0.0, cell.name))
    return None


def _gate(facts: Facts) -> Target:
    return Target(figure="gate.mean", split="gate", direction="up", before=facts.gate_mean)


def _nevers(share: float | None) -> Target:
    return Target(figure="never right", split="train", direction="down", before=share)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _action(kind: ActionKind, reason: str, target: Target, settings: dict[str, Any] | None = None) -> Action:
    return Action(kind=kind, reason=reason, target=target, settings=settings or {})
