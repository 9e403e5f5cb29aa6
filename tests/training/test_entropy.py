"""The entropy that is reported is that of the policy at the completion positions."""

from __future__ import annotations

import math

import pytest
import tiny
import torch

from selfrefine.compute.forward import completion_logprobs
from selfrefine.training.entropy import EntropyMeter


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_entropy_against_the_full_distributions(kind: str) -> None:
    """More positions than are computed at once; gemma2 caps its logits behind the head."""
    model = tiny.model(kind)
    pairs = [((1, 2, 3), tuple(range(1, 91))), ((4, 5), (6,))]
    with EntropyMeter(active=True) as meter:
        for pair in pairs:
            completion_logprobs(model, [pair])
    nats = 0.0
    with torch.no_grad():
        for prompt, completion in pairs:
            table = model(torch.tensor([[*prompt, *completion]])).logits[0].double().log_softmax(-1)
            nats -= float((table.exp() * table)[len(prompt) - 1 : -1].sum())
    assert 0.1 < nats / 91 < math.log(303)
    assert meter.mean(91) == {"entropy": pytest.approx(nats / 91, rel=1e-4)}


def test_what_was_not_watched_is_not_zero() -> None:
    model = tiny.model()
    with EntropyMeter(active=False) as meter:
        completion_logprobs(model, [((1,), (2,))])
    assert meter.mean(1) == {}
    with EntropyMeter(active=True) as meter:
        completion_logprobs(model, [((1,), (2,))])
    completion_logprobs(model, [((1,), (2,))])  # the hook is gone
    assert meter.positions == 1
    assert meter.mean(2) == {}  # of half the step's tokens nothing can be said
