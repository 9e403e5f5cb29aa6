"""The switch for the fast path: with it, a forward pass is what transformers, peft and torch make of it.

Off go the oneDNN products (`products`), the layers that compute W and B A as one (`adapted`), the head at the
wanted positions only (`head`, and while prompts are read), prompts shared by their completions (`packing`) or
their beginnings. Slower, and larger in memory: logits of every position exist. It is for finding out
whose fault a difference is (of the slot cache that sampling writes to, and of merged adapters, it says
nothing), after an update of transformers say. What was made so says so
(`engines.base.make_signature`), and a run goes on only as it began.
"""

from __future__ import annotations

import os

from selfrefine.errors import ConfigError

VARIABLE = "SELFREFINE_PLAIN"
_asked: bool | None = None


def plain() -> bool:
    """Is the fast path off in this process? Decided once: by `choose`, else by SELFREFINE_PLAIN=1."""
    if _asked is None:
        choose(False)
    return bool(_asked)


def choose(wanted: bool) -> None:
    """What the setting `compute.plain` says; SELFREFINE_PLAIN=1 counts all the same.

    Call it before an engine is loaded: models are prepared for one way or the other. Raises: ConfigError
    where the variable has another word.
    """
    global _asked
    said = os.environ.get(VARIABLE, "").lower()
    if said not in _WORDS:
        raise ConfigError(f"{VARIABLE}={said}: use 1 or 0")
    _asked = wanted or _WORDS[said]


_WORDS = {"": False, "0": False, "false": False, "no": False, "off": False} | dict.fromkeys(
    ("1", "true", "yes", "on"), True
)
