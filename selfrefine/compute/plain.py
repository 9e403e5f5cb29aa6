"""The switch for the fast path: with it, only what transformers, peft and torch do themselves is computed.

Off go the oneDNN products (`products`), the layers that compute W and B A as one (`adapted`), the head at the
wanted positions only (`head`, and while prompts are read), prompts shared by their completions (`packing`) or
their beginnings. Slower, and larger in memory: logits of every position exist. It is for finding out
whose fault a difference is, after an update of transformers say. What was made so says so
(`engines.base.make_signature`), and a run goes on only as it began.
"""

from __future__ import annotations

import os

VARIABLE = "SELFREFINE_PLAIN"
_asked: bool | None = None


def plain() -> bool:
    """Is the fast path off in this process? Decided once: by `choose`, else by SELFREFINE_PLAIN=1."""
    if _asked is None:
        choose(False)
    return bool(_asked)


def choose(wanted: bool) -> None:
    """What the setting `compute.plain` says; SELFREFINE_PLAIN=1 counts all the same.

    Call it before an engine is loaded: models are prepared for one way or the other.
    """
    global _asked
    _asked = wanted or os.environ.get(VARIABLE, "") not in ("", "0")
