"""A stage as a filter: rows in, unit by unit through the stage, rows out, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from msgspec import Struct

from selfrefine.records import Sample
from selfrefine.stages.alarms import Alarm, once
from selfrefine.stages.base import In, Stage, Total
from selfrefine.stages.progress import Bar, Reporter


def units_of(stage: Stage[In, Total], rows: Iterable[In]) -> Iterator[list[In]]:
    """The units of a stream, with the first of them waited for: its rows, and the model that cuts them.

    The first row is read before the stage does anything: bad input is refused before a model is loaded.
    """
    rows = iter(rows)
    first = next(rows, None)
    units = stage.units(chain([] if first is None else [first], rows))
    unit = next(units, None)
    return chain([] if unit is None else [unit], units)


def as_stream(
    stage: Stage[In, Total],
    units: Iterable[list[In]],
    emit: Callable[[list[Sample]], object],
    reporter: Reporter,
    bar: Bar,
) -> Struct:
    """Each unit's rows go to `emit` as soon as they are there; returns what all units came to."""
    total: Total = stage.totals()  # type: ignore[assignment]

    @once
    def ring(found: list[Alarm]) -> None:
        for one in found:
            reporter.say(f"{stage.title} {one.reason}")

    for unit in units:
        made, part = stage.make(unit, bar)
        total += part
        emit(made)
        ring(stage.early(total))
    ring(stage.alarms(total))
    return stage.summary(total)
