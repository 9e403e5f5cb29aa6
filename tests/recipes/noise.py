"""A reward that a random model's noise earns half of the time: is the length of the answer even?"""

from __future__ import annotations

from typing import Any


def even(sample: Any) -> float:
    return float(len(sample.text) % 2 == 0)
