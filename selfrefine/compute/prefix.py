"""What prompts begin with in common: the system prompt and the template, computed once for all of them."""

from __future__ import annotations

from collections.abc import Sequence

LEAST = 8
"""A shorter common beginning is not worth a computation of its own."""


def shared_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, at least one short of the shortest; 0 when below LEAST."""
    if len(prompts) < 2:
        return 0
    # Whatever the lexicographically least and greatest share, all between them share.
    least, greatest = min(map(tuple, prompts)), max(map(tuple, prompts))
    limit = min(map(len, prompts)) - 1
    length = next((i for i in range(limit) if least[i] != greatest[i]), limit)
    return length if length >= LEAST else 0
