"""Commit units: how a stream is cut into batches that are written, fsynced and resumed whole.

A unit is a stretch of the input, in input order, cut where a new task begins (a group reward needs its whole
group). What is decoded together inside a unit is the engine's business. Sizes are constants, never free
memory, so that a resumed run cuts where it would have cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TypeVar

from selfrefine.records import Sample

T = TypeVar("T")

ROWS = 1024
"""Rows of a unit at most: the window within which a stream may be sorted."""


def cut(
    rows: Iterable[T], cost: Callable[[T], int], limit: int, group: Callable[[T], str]
) -> Iterator[list[T]]:
    """Stretches of at most `limit` cost and ROWS rows; a single group may exceed both. Streams."""
    unit: list[T] = []
    spent = 0
    for _, members in groupby(rows, group):
        whole = list(members)
        more = sum(map(cost, whole))
        if unit and (spent + more > limit or len(unit) + len(whole) > ROWS):
            yield unit
            unit, spent = [], 0
        unit += whole
        spent += more
    if unit:
        yield unit


def sample_units(
    samples: Iterable[Sample], tokens_each: int = 1, limit: int = ROWS
) -> Iterator[list[Sample]]:
    """Samples in units of at most `limit` tokens (rows, by default), a task's rows together."""
    return cut(samples, lambda _: tokens_each, limit, lambda sample: sample.task.id)
