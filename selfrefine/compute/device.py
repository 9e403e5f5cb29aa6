"""The device that a model runs on, and how much may be computed at once there. Imports no torch by itself."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass

from selfrefine.config import TrainConfig


@dataclass(frozen=True)
class Budget:
    """How much may be decoded together: constants of a device class, never of free memory."""

    rows: int
    tokens: int
    """Cache slots (rows x columns)."""
    prefill_tokens: int


BUDGETS: dict[str, Budget] = {
    # On a CPU more rows only move the cache out of reach.
    "cpu": Budget(rows=128, tokens=49_152, prefill_tokens=4_096),
    "cuda": Budget(rows=512, tokens=524_288, prefill_tokens=32_768),
    "mps": Budget(rows=128, tokens=65_536, prefill_tokens=8_192),
}
SLACK = 64
"""Extra columns: the cache is shifted left once per this many steps instead of at every refill."""
UNIT_TOKENS = {"cpu": 24_576, "cuda": 1_048_576, "mps": 49_152}
"""New tokens a commit unit holds at most: about a minute of sampling a 135M model on two cores."""
SCORE_TOKENS = {"cpu": 4_096, "cuda": 32_768, "mps": 4_096}
TRAIN_TOKENS = {"cpu": 240, "cuda": 16_384, "mps": 2_048}
"""Tokens of a micro-batch. A few hundred keep a CPU's products busy, and memory follows."""


def token_budget(settings: TrainConfig, device: str, longest: int = 0) -> int:
    """Tokens of a micro-batch at most: what was asked for, or the constant of the device class.

    The constant gives way to twice the longest prompt with its answer: one has to fit anyhow, and where only
    one does, no prompt is ever shared.
    """
    return settings.token_budget or max(TRAIN_TOKENS[device], 2 * longest)


def pick_device() -> str:
    """cuda, mps or cpu, the first that there is. `--dry-run` asks too: a CPU build of torch is known as one
    without the second that its import takes."""
    if "torch" not in sys.modules and importlib.metadata.version("torch").endswith("+cpu"):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
