"""The entropy of the policy at completion positions, read off the logits while they are there.

Legend: c completion tokens at once, V vocabulary.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from selfrefine.compute import head

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
            head.is_plain(self.model)  # its pass over two tokens is not one of the step's
            head.listeners.append(self._add)
            self._handle = self.model.register_forward_hook(self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            head.listeners.remove(self._add)
            self._handle.remove()

    @torch.no_grad()
    def _read(self, _module: Any, _inputs: Any, out: Any) -> None:
        """Where the head's logits were not kept (`head.picking`), the head has told them already."""
        if getattr(out, "logits", None) is None or out.logits.shape[-1] == 1:
            return
        for rows_cV in torch.split(out.logits.detach()[0], ROWS):
            # entr(0) is 0, where p log p of a token that can never come would be 0 times -inf.
            self._add(torch.special.entr(rows_cV.float().softmax(-1)).sum(-1))

    def _add(self, entropies_c: Tensor) -> None:
        self.nats += float(entropies_c.sum())
        self.positions += len(entropies_c)

    def mean(self, tokens: int) -> dict[str, float]:
        """The metric `entropy`, nats per token; nothing unless it is of exactly the step's tokens."""
        return {"entropy": self.nats / tokens} if tokens and self.positions == tokens else {}
