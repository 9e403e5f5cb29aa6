"""The headline: what a run came to, in a figure and in words that a person without statistics can use."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from selfrefine.errors import ConfigError
from selfrefine.report.page.figures import Headline
from selfrefine.report.page.read import Told
from selfrefine.report.words import compact, duration
from selfrefine.rewards import REWARDS
from selfrefine.stats import Difference
from selfrefine.steps.reward import parse_spec
from selfrefine.words import count

Tone = Literal["better", "worse", "open"]


def headline(told: Told) -> Headline:
    """The gain on the test tasks; where there is none, why."""
    gain = None if told.gain is None else told.gain.change
    notes = tuple(_notes(told))
    if gain is None or gain.mean is None:
        return Headline(
            tone="open", figure="No result yet", says=_why_none(told), strip=tuple(_strip(told)), notes=notes
        )
    start, end = (
        _mean(one) for one in (told.rounds[0].measures.get("test"), told.final.test if told.final else None)
    )
    moved = f"The mean reward ({told.measure}) went from {start} to {end}." if start and end else ""
    return Headline(
        tone=tone(gain),
        figure=f"{gain.mean:+.3f}",
        beside=interval_words(gain),
        says=verdict(gain),
        means=" ".join(filter(None, (moved, meaning(gain, _kept(told) > 0, _whole(told))))),
        strip=tuple(_strip(told)),
        notes=notes,
    )


def tone(gain: Difference) -> Tone:
    """What the interval leaves no doubt of."""
    if gain.lo is None or gain.hi is None:
        return "open"
    return "better" if gain.lo > 0 else "worse" if gain.hi < 0 else "open"


def interval_words(gain: Difference) -> str:
    if gain.lo is None or gain.hi is None:
        return "no interval"
    return f"95 % interval {gain.lo:+.3f} to {gain.hi:+.3f}"


def verdict(gain: Difference) -> str:
    """One sentence: better, worse, or not to be told from no change."""
    tasks = count(gain.n, "test task")
    if gain.mean is None:
        return "No test task was scored at the start and at the end."
    if gain.lo is None or gain.hi is None:
        return f"Too few of {tasks} changed to tell whether the model got better or worse."
    if gain.lo > 0:
        return f"The model got better: on {tasks} it never learnt from, it gains more than chance explains."
    if gain.hi < 0:
        return f"The model got worse: on {tasks}, it loses more than chance explains."
    return (
        f"The result cannot be told from no change: on {tasks}, chance alone may explain such a difference."
    )


def meaning(gain: Difference, kept: bool, whole: bool) -> str:
    """What the figure and its interval say in tasks. whole: an answer is right or wrong, nothing between."""
    if gain.mean is None:
        return ""
    if not kept and gain.mean == 0:
        return "No round was kept, so the accepted policy is the starting one."
    more = "more" if gain.mean >= 0 else "fewer"
    points = f"{abs(100 * gain.mean):.0f}"
    about = (
        f"Of 100 such tasks, about {points} {more} are answered right."
        if whole
        else f"Where 100 is full reward for every task, that is about {points} points {more}."
    )
    if gain.lo is None or gain.hi is None:
        return about
    low, high = (f"{100 * end:+.0f}" for end in (gain.lo, gain.hi))
    return f"{about} With other tasks of the same kind it might have been between {low} and {high}."


def _why_none(told: Told) -> str:
    if told.state == "running":
        return "The run goes on. The gain is known when it ends and the test tasks are answered again."
    if not told.rounds:
        return "No round is committed yet, so there is nothing to compare."
    if not told.manifest.tasks.get("test"):
        return "This run has no test tasks (tasks.test 0), so its gain was not measured."
    if "test" not in told.rounds[0].measures:
        return "The starting policy was not measured on the test tasks, so there is no gain to tell."
    return (
        f"The final measurement is missing: `selfrefine cycle --run {told.run.called}` goes on and makes it, "
        f"`selfrefine gate --run {told.run.called} --final` makes it now."
    )


def _whole(told: Told) -> bool:
    """Whether every measured answer got 0 or 1: then the interval is Wilson's."""
    ends = (told.rounds[0].measures.get("test"), told.final.test if told.final else None)
    return all(one is not None and one.method == "wilson" for one in ends)


def _kept(told: Told) -> int:
    return sum(1 for one in told.rounds if one.gate is not None and one.gate.outcome == "accept")


def _mean(measured: object) -> str:
    mean = getattr(measured, "mean", None)
    return "" if mean is None else f"{mean:.3f}"


def _strip(told: Told) -> list[tuple[str, str]]:
    trained = [one for one in told.rounds if one.index]
    tokens = sum(one.cost.tokens for one in told.rounds)
    found = [
        ("Rounds kept", f"{_kept(told)} of {len(trained)}"),
        ("Measured by", told.measure),
        ("Model", model_name(told)),
        ("Tokens sampled", compact(tokens)),
    ]
    if seconds := sum(told.seconds.values()):
        found.append(("Time", duration(seconds)))
    if told.doing:
        found.append(("Now", told.doing))
    found.append(("State", told.state.partition(":")[0] or "–"))
    return found


def model_name(told: Told) -> str:
    """Of a folder its last part: where it lies is no name."""
    name = told.manifest.model.get("id", "")
    return name.rstrip("/").rpartition("/")[2] if name.startswith(("/", ".", "~")) else name or "–"


def self_measured(told: Told) -> bool:
    """Whether the policy itself judges what it is measured by. No, where that reward's plugin is gone."""
    config = told.manifest.config
    specs = config.get("evaluate", {}).get("measure") or config.get("reward", {}).get("use") or ()
    with suppress(ConfigError):
        return any(REWARDS.get(parse_spec(spec).name).judge != "outside" for spec in specs)
    return False


def _notes(told: Told) -> list[str]:
    notes = list(told.problems)
    if self_measured(told):
        notes.append(
            "Self-measured: the model judges its own answers, so the figure is its opinion of itself."
        )
    if told.state.startswith("failed"):
        notes.append(told.state)
    if told.state == "interrupted":
        notes.append(f"The run was interrupted; `selfrefine cycle --run {told.run.called}` continues it.")
    if told.state == "by hand":
        notes.append(
            "The run is made by hand, stage by stage: what no stage has made yet is not on this page."
        )
    if told.unscored and told.state != "running":
        rounds = ", ".join(map(str, told.unscored))
        notes.append(
            f"Answers that are not scored yet are not on this page (round {rounds}): "
            f"`selfrefine reward --run {told.run.called}` scores them."
        )
    if told.gain is not None and (dropped := told.gain.change.dropped):
        notes.append(f"Left out of the gain, without a score at one end: {count(dropped, 'test task')}.")
    return notes
