"""Supervised fine-tuning on selected completions.

    L = - (1 / T) * sum_i sum_t log p(y_it | x_i, y_i<t)

with T the completion tokens of the whole optimizer step, the stop token included (without it the model
never learns to stop). Every token counts alike, as in the usual trainers' token-level mean.

Source: the M-step of ReST-EM (Singh et al. 2023, eq. 3) with binary rewards; STaR (Zelikman et al. 2022,
eq. 1).
Differs from the papers: 1. they divide by sequences, not tokens (long answers weigh more here).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from selfrefine.objectives.base import Batch, Loss, ObjectiveKind

if TYPE_CHECKING:
    from torch import Tensor


def sft(logprobs: Sequence[Tensor], batch: Batch) -> Loss:
    """logprobs: one tensor [tokens] of nats for each of batch.items."""
    total = sum((row.sum() for row in logprobs[1:]), start=logprobs[0].sum())
    return Loss(-total / batch.step_tokens, {})


SFT = ObjectiveKind(
    name="sft",
    about="good answers, all weighted equally",
    rows="answers",
    loss=sft,
    learning_rate=2e-4,
    source="STaR, ReST-EM",
)
