"""Which training tasks a round should draw more often: those that are weak and can be learnt from.

A prompt teaches only where some of its answers are right and some are wrong: with n answers that are right
with probability p each, by 1 - p^n - (1 - p)^n. Times what there is to gain, 1 - p. Where hard tasks are
never right, that draws the easy ones first, and moves on as they are learnt: a curriculum that nobody wrote.

Source: the chance of a mixed group is what Yu et al. 2025, "DAPO", section 3.2 filter by; the order from easy
to hard is Bengio et al. 2009, "Curriculum learning".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from selfrefine.records import Task
from selfrefine.reflection.findings import Slice, Weaknesses
from selfrefine.reflection.slices import holds

AXES = 2
"""Slices that cut the mixture: two make four parts, and each part needs tasks to be measured on."""
FEW = 5
"""Measured tasks below which a part keeps the weight of 1."""
LEAST = 0.2
"""Of the largest weight. Never 0: what is not drawn is not learnt, and not seen getting better."""
ALIKE = 0.95
"""Two slices that agree on so many tasks, or are each other's rest, are one."""
EVEN = 0.8
"""Where the smallest weight is above this, drawing by weight would change nothing worth saying."""


class Part(Struct, frozen=True, kw_only=True):
    """The tasks that lie inside and outside of the axes as `inside` says."""

    inside: tuple[bool, ...]
    tasks: int
    """Those that were measured."""
    rate: float | None
    """Their mean reward; null below FEW."""
    weight: float


class Mixture(Struct, frozen=True, kw_only=True):
    """How a round draws its tasks: each by the weight of the part that it lies in."""

    axes: tuple[Slice, ...]
    parts: tuple[Part, ...]

    def weight(self, task: Task) -> float:
        """Above 0; 1 for a part that nobody measured."""
        place = tuple(holds(axis, task) for axis in self.axes)
        return next((part.weight for part in self.parts if part.inside == place), 1.0)


def teaches(p: float, n: int) -> float:
    """What a prompt that is right with probability p teaches in a round of n answers; in [0, 1]."""
    return (1 - p) * (1 - p**n - (1 - p) ** n)


def mixture(found: Weaknesses, measured: Sequence[tuple[Task, float]], n: int) -> Mixture | None:
    """The weights by up to AXES of the heaviest weaknesses; None where they would be about even.

    measured: tasks with their mean reward in [0, 1], by answers of the policy that samples next.
    """
    cells = {cell.name: cell for cell in (*found.gate, *found.train)}
    slices = [cell.slice for name in found.heaviest if (cell := cells.get(name)) and cell.slice is not None]
    axes: list[Slice] = []
    columns: list[list[bool]] = []
    for one in slices:
        column = [holds(one, task) for task, _ in measured]
        if 0 < sum(column) < len(column) and not any(_alike(column, other) for other in columns):
            axes.append(one)
            columns.append(column)
        if len(axes) == AXES:
            break
    if not axes:
        return None
    rates: dict[tuple[bool, ...], list[float]] = {}
    for place, (_, rate) in zip(zip(*columns, strict=True), measured, strict=True):
        rates.setdefault(place, []).append(rate)
    parts = _weighted(rates, n)
    if min(part.weight for part in parts) > EVEN:
        return None
    return Mixture(axes=tuple(axes), parts=parts)


def _weighted(rates: Mapping[tuple[bool, ...], Sequence[float]], n: int) -> tuple[Part, ...]:
    """The rate is drawn towards a half by half a right and half a wrong task (Jeffreys)."""
    raw = {
        place: teaches((sum(own) + 0.5) / (len(own) + 1), max(2, n)) if len(own) >= FEW else None
        for place, own in rates.items()
    }
    most = max((one for one in raw.values() if one is not None), default=1.0)
    return tuple(
        Part(
            inside=place,
            tasks=len(rates[place]),
            rate=sum(rates[place]) / len(rates[place]) if one is not None else None,
            weight=1.0 if one is None else round(max(LEAST, one / most), 3),
        )
        for place, one in sorted(raw.items(), reverse=True)
    )


def _alike(one: Sequence[bool], other: Sequence[bool]) -> bool:
    same = sum(a == b for a, b in zip(one, other, strict=True)) / len(one)
    return same >= ALIKE or same <= 1 - ALIKE


def from_settings(settings: Mapping[str, Any]) -> Mixture:
    """As it stands in plan.json. Raises: msgspec.ValidationError."""
    return msgspec.convert(settings, Mixture)


def weigher(settings: Mapping[str, Any]) -> Callable[[Task], float]:
    """A task to its weight."""
    return from_settings(settings).weight
