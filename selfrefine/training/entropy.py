"""The entropy of the policy at completion positions, read off the logits that are there anyway.

Legend: N completion tokens of a micro-batch, V vocabulary.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor

ROWS = 64
"""Positions at once: the whole N x V again would double the memory peak of a step."""


class EntropyMeter:
    """Inside, adds up nats over the positions whose logits a forward pass returns: exact, no gradient."""

    def __init__(self, model: Any, *, active: bool) -> None:
        self.model, self.active = model, active
        self.nats, self.positions = 0.0, 0
        self._handle: Any = None

    def __enter__(self) -> EntropyMeter:
        if self.active:
            self._handle = self.model.register_forward_hook(self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.remove()

    @torch.no_grad()
    def _read(self, _module: Any, _inputs: Any, out: Any) -> None:
        if getattr(out, "logits", None) is None:
            return
        logits_NV: Tensor = out.logits.detach()[0]
        for rows_V in torch.split(logits_NV, ROWS):
            table = rows_V.float().log_softmax(-1)
            self.nats -= float((table.exp() * table).sum())
        self.positions += len(logits_NV)

    def mean(self, tokens: int) -> dict[str, float]:
        """The metric `entropy`, nats per token; nothing unless it is of exactly the step's tokens."""
        return {"entropy": self.nats / tokens} if tokens and self.positions == tokens else {}
