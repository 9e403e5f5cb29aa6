"""How answers to the same tasks changed from one policy to another: by tag, and task by task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from selfrefine.records import Count, Sample, Task
from selfrefine.stats import Difference, paired_difference
from selfrefine.steps.critique_outcome import is_right
from selfrefine.steps.evaluate import per_task

Means = Mapping[str, float | None]
"""By task id."""


class TagGain(Struct, frozen=True, kw_only=True):
    """The paired gain on the tasks that carry one value of a tag."""

    tag: str
    value: str
    tasks: Count
    before: float | None
    after: float | None
    gain: Difference


class Flips(Struct, frozen=True, kw_only=True):
    """Tasks by what became of them; those without a score under both policies are `unscored`."""

    stayed_right: Count = 0
    became_right: Count = 0
    became_wrong: Count = 0
    stayed_wrong: Count = 0
    unscored: Count = 0


MOST_VALUES = 12


def by_tag(
    before: Sequence[Sample], after: Sequence[Sample], seed: int, *, joint: bool = False
) -> list[TagGain]:
    """The gain for each value of each tag that is `telling`, in order of tags and values.

    joint: the intervals together hold with 95 % (Bonferroni), not each: what one of many values did by luck
    is then no finding.
    """
    tags = {row.task.id: cuts(row.task) for row in [*before, *after]}
    cells = telling(tags)
    level = 1 - 0.05 / max(1, len(cells)) if joint else 0.95
    old, new = per_task(before), per_task(after)
    return [
        _gain(tag, value, [key for key, own in tags.items() if own.get(tag) == value], old, new, seed, level)
        for tag, value in cells
    ]


def telling(tags: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    """Tags with their values, sorted. `tags`: of each task, its `cuts`.

    A tag that has one value only, or more than MOST_VALUES (an id, a source text), tells nothing and is left
    out, and so is the cut by signs where a tag says the same.
    """
    values: dict[str, set[str]] = {}
    for own in tags.values():
        for tag, value in own.items():
            values.setdefault(tag, set()).add(value)
    names = {name for name, seen in values.items() if 2 <= len(seen) <= MOST_VALUES}
    if SIGN in names and any(_same_cut(tags, SIGN, name) for name in names - {SIGN}):
        names.remove(SIGN)
    return [(tag, value) for tag in sorted(names) for value in sorted(values[tag])]


def _gain(
    tag: str, value: str, ids: Sequence[str], old: Means, new: Means, seed: int, level: float
) -> TagGain:
    pairs = [(b, a) for key in ids if (b := old.get(key)) is not None and (a := new.get(key)) is not None]
    return TagGain(
        tag=tag,
        value=value,
        tasks=len(pairs),
        before=sum(b for b, _ in pairs) / len(pairs) if pairs else None,
        after=sum(a for _, a in pairs) / len(pairs) if pairs else None,
        gain=paired_difference(
            {key: old.get(key) for key in ids}, {key: new.get(key) for key in ids}, seed, level
        ),
    )


def _same_cut(tags: Mapping[str, Mapping[str, str]], one: str, other: str) -> bool:
    """Whether two tags part the tasks alike, whatever their values are called."""
    pairs = {(own.get(one), own.get(other)) for own in tags.values()}
    return all(len({pair[i] for pair in pairs}) == len(pairs) for i in (0, 1))


_SIGNS = re.compile(r"\d\s*([-−+*×/÷])\s*\(?[-−]?\d")
_SAME_SIGN = {"−": "-", "*": "×", "/": "÷"}
SIGN = "sign"
"""The cut of a sum's prompt by its signs. Sources of sums tag their size only, and a mean over additions and
subtractions hides that one of them is not learnt."""


def cuts(task: Task) -> dict[str, str]:
    """A task's tags, and of a sum which signs stand between its numbers: "+", "- +"."""
    prompt = task.prompt[-1].content if task.prompt else ""
    signs = sorted({_SAME_SIGN.get(sign, sign) for sign in _SIGNS.findall(prompt[:_LONGEST])})
    return ({SIGN: " ".join(signs)} if signs else {}) | task.tags


_LONGEST = 4_000
"""Characters of a prompt that are looked at."""


def flips(before: Sequence[Sample], after: Sequence[Sample]) -> Flips:
    """How many tasks became right and wrong; right is a mean reward of 1."""
    old, new = per_task(before), per_task(after)
    counts = dict.fromkeys(Flips.__struct_fields__, 0)
    for key in old.keys() | new.keys():
        b, a = old.get(key), new.get(key)
        if b is None or a is None:
            counts["unscored"] += 1
        elif is_right(b):
            counts["stayed_right" if is_right(a) else "became_wrong"] += 1
        else:
            counts["became_right" if is_right(a) else "stayed_wrong"] += 1
    return Flips(**counts)
