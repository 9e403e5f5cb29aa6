"""Every random choice of a run, derived from its seed by name and never from inherited generator state.

A row's stream depends on what the row is (stage, pass, round, task, index) and on nothing else, so it
does not matter which rows share its batch, where a resume starts or what was drawn before.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # naming a reward would wait for it
    import numpy as np


def derive(run_seed: int, *parts: str | int) -> int:
    """A seed in [0, 2^53) for the thing named by `parts`: the first 53 bits of a sha256.

    Parts are length-prefixed, so ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256()
    for part in (run_seed, *parts):
        data = f"{type(part).__name__}:{part}".encode()
        digest.update(len(data).to_bytes(4, "big") + data)
    return int.from_bytes(digest.digest()[:8], "big") >> 11


def row_seed(run_seed: int, stage: str, pass_index: int, round_index: int, task_id: str, index: int) -> int:
    """The seed stored with a sample: enough, with the prompt and the policy, to draw it again."""
    return derive(run_seed, "row", stage, pass_index, round_index, task_id, index)


def generator(seed: int) -> np.random.Generator:
    """Philox is counter-based: cheap to construct, one per row, and stable across NumPy versions."""
    import numpy as np

    return np.random.Generator(np.random.Philox(key=seed))
