"""Figures that add up: what a stage's commit units come to, summed in their order."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, Self

from msgspec import Struct


class Sums(Struct, frozen=True, kw_only=True):
    """Numbers add; structs, tuples and dicts add by field, place and key; of texts the first one stays.

    In the order of the units, whether a unit was made just now or by a process that died: equal to the bit.
    """

    def __add__(self, other: Self) -> Self:
        sums = {name: _added(getattr(self, name), getattr(other, name)) for name in self.__struct_fields__}
        return type(self)(**sums)


def _added(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, dict):
        return {key: _added(a.get(key), b.get(key)) for key in (*a, *(k for k in b if k not in a))}
    if isinstance(a, tuple):
        return tuple(_added(x, y) for x, y in zip_longest(a, b))
    return a if isinstance(a, str) else a + b
