"""A reward that always gives spread on a random model's noise: the share of letters in an answer. And what a
program has to say of an answer in which they are few."""

from __future__ import annotations

from typing import Any

FAULT, LEAST = "missing: letters", 0.5


def share(sample: Any) -> float:
    return (1 + sum(c.isascii() and c.isalpha() for c in sample.text)) / (2 + len(sample.text))


def wrong(sample: Any) -> str:
    return FAULT if share(sample) < LEAST else ""
