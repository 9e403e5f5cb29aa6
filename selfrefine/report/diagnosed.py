"""A round's diagnosis in words: what it learnt from, what changed, what to try."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from selfrefine.records import Count
from selfrefine.reflection.advice import Suggestion
from selfrefine.reflection.changes import Flips, TagGain
from selfrefine.reflection.diagnosis import Changed, Diagnosis, Learnt
from selfrefine.report.safe_text import text
from selfrefine.report.words import number
from selfrefine.words import count

_PROMPT, _ANSWER = 100, 160
_MOST_TAGS = 6


def diagnosed(found: Diagnosis, run: str) -> list[RenderableType]:
    """What stands below the gate's decision; `run` as it is named on a command line."""
    parts: list[RenderableType] = [facts([*_learning(found), *changes(found)])]
    if found.outcome == "reject" and found.examples:
        parts.append(Padding(text("the accepted policy's answers and the candidate's:"), (0, 0, 0, 2)))
        parts += [Padding(beside(one, ("accepted", "rejected")), (0, 0, 0, 4)) for one in found.examples]
    if found.suggestion is not None:
        said, line = suggested(found.suggestion, run)
        parts.append(facts([("next", said)]))
        parts += [command(line)] if line else []
    return parts


def command(line: str) -> RenderableType:
    """A line to copy: a break within it would end it. Print with crop=False."""
    shown = text(f"            {line}")
    shown.no_wrap, shown.overflow = True, "ignore"
    return Group(shown)  # a console joins texts that it is given, and forgets what is set on them


def facts(rows: Sequence[tuple[str, str]]) -> Padding:
    """Labels and what they say, as wide as the console; a label that is said again is left out."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, min_width=9)
    grid.add_column(overflow="fold")
    before = ""
    for label, said in rows:
        grid.add_row(text("" if label == before else label, "bold"), text(said))
        before = label
    return Padding(grid, (0, 0, 0, 2))


def _learning(found: Diagnosis) -> Iterator[tuple[str, str]]:
    if found.samples is not None:
        said = [f"{count(found.samples, 'answer')} to {count(found.prompts or 0, 'prompt')}"]
        said += [f"{number(found.truncated)} cut off"] if found.truncated else []
        if found.groups and found.groups_without_spread:
            flat, of = number(found.groups_without_spread), number(found.groups)
            said.append(f"{flat} of {of} groups without spread (their answers all score alike)")
        yield "sampled", ", ".join(said)
    if found.trained or found.measured:
        yield "scored", "; ".join(_scored(found))
    if found.learnt is not None:
        yield "learnt", _learnt(found)
    if found.loss_early is not None and found.loss_late is not None:
        yield "loss", _loss(found.loss_early, found.loss_late)


def _scored(found: Diagnosis) -> Iterator[str]:
    sides = ("in training", found.trained), ("on gate tasks", found.measured)
    for where, means in sides:
        if means:
            each = (f"{name} {'–' if mean is None else f'{mean:.3f}'}" for name, mean in means.items())
            yield f"{where} {', '.join(each)}"


def _learnt(found: Diagnosis) -> str:
    prompts = f" of {count(found.learnt_prompts, 'prompt')}" if found.learnt_prompts is not None else ""
    said = [f"{count(found.learnt or 0, 'answer')}{prompts}"]
    said += [passing(found.passes, found.learnt or 0)] if found.passes is not None else []
    said += [f"{number(found.replayed)} replayed from earlier rounds"] if found.replayed else []
    said += [count(found.steps, "step")] if found.steps is not None else []
    return ", ".join(said)


def passing(passes: Learnt, learnt: int) -> str:
    """How many of the learnt answers pass the measure; of a graded one, their mean."""
    of = "them" if passes.scored >= learnt else f"{number(passes.scored)} looked at"
    if not passes.scored:
        return f"not measured: {passes.why or 'no answer has a score'}"
    if passes.passing or not passes.mean:
        return f"{number(passes.passing)} of {of} pass {passes.measure}"
    return f"none of {of} with full marks in {passes.measure}, mean {passes.mean:.3f}"


def _loss(early: float, late: float) -> str:
    said = f"{early:.3f} → {late:.3f}, means of the first and the last third of the steps"
    if late <= early:
        return said
    return f"{said}: it did not fall. Each step has other answers; if it rises in each round, lower train.lr"


def changes(found: Diagnosis) -> Iterator[tuple[str, str]]:
    """What became of the gate tasks, and by tag what is more than noise."""
    if found.flips is None:
        return
    yield "flipped", flipped(found.flips, "gate task")
    for label, gains in (("improved", found.improved), ("worse", found.worse)):
        for one in gains[:_MOST_TAGS]:
            yield label, tag_gain(one)
        if len(gains) > _MOST_TAGS:
            yield label, f"and {count(len(gains) - _MOST_TAGS, 'more value')}"
    if found.looked_at and not (found.improved or found.worse):
        yield "by tag", f"{count(found.looked_at, 'value')} of tags compared: no change beyond noise"


def flipped(flips: Flips, what: str) -> str:
    """How many tasks changed sides."""
    compared = flips.stayed_right + flips.stayed_wrong + flips.became_right + flips.became_wrong
    return (
        f"{number(flips.became_right)} became right, {number(flips.became_wrong)} became wrong, of "
        f"{count(compared, what)}" + (f"; {number(flips.unscored)} unscored" if flips.unscored else "")
    )


def tag_gains(gains: Sequence[TagGain], most: int = 8) -> Iterator[tuple[str, str]]:
    """A line a value; those of a few tasks say nothing, and a list of them hides the others. Their intervals
    hold one by one, which is said: of twenty, one is off by chance."""
    large = [one for one in gains if one.tasks >= _FEW]
    for one in large[:most]:
        yield "by tag", tag_gain(one)
    if (left := len(gains) - len(large[:most])) and gains:
        yield "by tag", f"and {count(left, 'more value')}, {len(gains) - len(large)} of them with few tasks"
    if any(one.gain.lo is not None for one in large[1:most]):
        yield "", "each interval holds by itself: they are not corrected for their number"


_FEW = 5


def tag_gain(one: TagGain) -> str:
    """ "sign = +: 0.195 → 0.563, +0.368 [+0.268, +0.463], 190 tasks"."""
    from selfrefine.report.words import with_interval

    sides = " → ".join("–" if side is None else f"{side:.3f}" for side in (one.before, one.after))
    return f"{one.tag} = {one.value}: {sides}, {with_interval(one.gain)}, {count(one.tasks, 'task')}"


def suggested(found: Suggestion, run: str) -> tuple[str, str]:
    """The suggestion as a sentence, and the line to copy; "" where there is none."""
    flags = " ".join(map(shlex.quote, found.flags))
    if found.kind == "continue":
        return f"{found.why}:", f"selfrefine cycle --run {run} {flags}".rstrip()
    if found.kind == "another-run":
        return f"{found.why}: start another run" + (" with" if flags else ""), flags
    return found.why, ""


def beside(one: Changed, sides: tuple[str, str]) -> Table:
    """One task's answers under two policies, each marked right or wrong."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    rows = (one.before_reward, one.before), (one.after_reward, one.after)
    for side, (reward, answer) in zip(sides, rows, strict=True):
        grid.add_row(text(side), mark(reward), text(one_line(answer, _ANSWER)))
    whole = Table.grid()
    whole.add_row(text(one_line(one.prompt, _PROMPT), "dim"))
    whole.add_row(Padding(grid, (0, 0, 0, 2)))
    return whole


def mark(reward: float | None) -> RenderableType:
    """right, wrong, or the reward between; in words, so that it is read without colour."""
    if reward is None:
        return text("unscored", "dim")
    if reward <= 0.0:
        return text("wrong", "red")
    return text("right", "green") if reward >= 1.0 - 1e-9 else text(f"{reward:.3f}", "yellow")


def one_line(value: str, limit: int) -> str:
    """White space evened out; what is too long ends in "…"."""
    one = " ".join(value[: 8 * limit].split())
    return one if len(one) <= limit else one[: limit - 1] + "…"


def shown_rounds(total: Count, most: int) -> tuple[list[int], int]:
    """Which of `total` rows are shown where `most` fit: the first and the last ones; how many are not."""
    if total <= most:
        return list(range(total)), 0
    return [0, *range(total - most + 2, total)], total - most + 1
