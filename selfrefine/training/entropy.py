"""The entropy of the policy at completion positions, read off the logits while they are there."""

from __future__ import annotations

from torch import Tensor

from selfrefine.compute import head


class EntropyMeter:
    """Inside, adds up nats over the positions that `completion_logprobs` computes: exact, no gradient."""

    def __init__(self, *, active: bool) -> None:
        self.active = active
        self.nats, self.positions = 0.0, 0

    def __enter__(self) -> EntropyMeter:
        if self.active:
            head.listeners.append(self._add)
        return self

    def __exit__(self, *_why: object) -> None:
        if self.active:
            head.listeners.remove(self._add)

    def _add(self, entropies_c: Tensor) -> None:
        self.nats += float(entropies_c.sum())
        self.positions += len(entropies_c)

    def mean(self, tokens: int) -> dict[str, float]:
        """The metric `entropy`, nats per token; nothing unless it is of exactly the step's tokens."""
        return {"entropy": self.nats / tokens} if tokens and self.positions == tokens else {}
