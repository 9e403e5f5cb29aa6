"""A reward that always gives spread on a random model's noise: the share of letters in an answer."""

from __future__ import annotations

from typing import Any


def share(sample: Any) -> float:
    return (1 + sum(c.isascii() and c.isalpha() for c in sample.text)) / (2 + len(sample.text))
