"""Self-distillation by hand: two classes of three tokens, both directions, the clip, and what is nothing."""

from __future__ import annotations

import math
from array import array
from typing import Any

import pytest
import torch
from rows import batch, item, settings

from selfrefine.objectives.base import Item, Taught
from selfrefine.objectives.distil import distil

FLOAT = {"abs": 1e-6}


def learner(*shares: tuple[float, ...]) -> torch.Tensor:
    """The policy's classes at each token, as logprobs."""
    return torch.tensor(shares).log().requires_grad_(True)


def pupil(*shares: tuple[float, ...]) -> Item:
    """An answer with the teacher's classes at each token: what is asked for, then the rest."""
    nats = [math.log(share) if share else -math.inf for row in shares for share in row]
    k = len(shares[0]) - 1
    taught = Taught(top_k=k, ids=array("i", range(k)) * len(shares), logprobs=array("f", nats))
    return item(len(shares), taught=taught)


def loss(student: torch.Tensor, taught: Item, **given: Any) -> Any:
    return distil([student], batch([taught], settings("distil", **given)))


def test_forward_by_hand() -> None:
    """Of three tokens one is compared and two are the rest. Teacher 3/4 and 1/4, policy 1/2 and 1/2:
    3/4 ln 3/2 + 1/4 ln 1/2. The gradient with respect to the policy's nats is minus the teacher's shares."""
    student = learner((0.5, 0.5))
    found = loss(student, pupil((0.75, 0.25)))
    assert found.value.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), **FLOAT)
    found.value.backward()
    assert student.grad is not None and student.grad[0].tolist() == pytest.approx([-0.75, -0.25])
    assert found.metrics == {"agreement": 1.0, "rest": pytest.approx(0.25)}


def test_reverse_by_hand() -> None:
    """1/2 ln 2/3 + 1/2 ln 2; its gradient is s (ln s/q + 1)."""
    student = learner((0.5, 0.5))
    found = loss(student, pupil((0.75, 0.25)), direction="reverse")
    assert found.value.item() == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2), **FLOAT)
    found.value.backward()
    assert student.grad is not None
    slopes = [0.5 * (math.log(2 / 3) + 1), 0.5 * (math.log(2) + 1)]
    assert student.grad[0].tolist() == pytest.approx(slopes, abs=1e-6)


def test_the_mean_is_over_the_steps_tokens_and_not_over_answers() -> None:
    """An answer of one token and one of three, of which two teach nothing: (a + 0 + 0 + b) / 4."""
    same = (0.6, 0.4)
    short, long = pupil((0.75, 0.25)), pupil(same, same, (0.25, 0.75))
    rows = [learner((0.5, 0.5)), learner(same, same, (0.5, 0.5))]
    one = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    whole = distil(rows, batch([short, long], settings("distil")))
    assert whole.value.item() == pytest.approx(2 * one / 4, **FLOAT)
    # The same step in two micro-batches.
    parts = [
        distil([row], batch([each], settings("distil"))._replace(step_items=2, step_tokens=4))
        for row, each in zip(rows, (short, long), strict=True)
    ]
    assert sum(part.value.item() for part in parts) == pytest.approx(2 * one / 4, **FLOAT)
    # Of equal shares the first counts as the likeliest, which the last token's teacher does not find.
    assert whole.metrics["agreement"] == 3 / 4
    assert sum(part.metrics["rest"] for part in parts) == pytest.approx((0.25 + 0.4 + 0.4 + 0.75) / 4)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_teacher_that_agrees_teaches_nothing(direction: str) -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0]], requires_grad=True)
    shares = logits.detach().softmax(-1)[0]
    found = loss(logits.log_softmax(-1), pupil(tuple(shares.tolist())), direction=direction)
    found.value.backward()
    assert found.value.item() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad is not None and logits.grad.abs().max().item() < 1e-6


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_where_nothing_is_left_beside_the_tokens_asked_for(direction: str) -> None:
    """The whole vocabulary is asked for, so the rest has a share of 0; 0 log 0 is 0, gradient and all."""
    student = torch.tensor([[math.log(0.5), math.log(0.5), -math.inf]], requires_grad=True)
    found = loss(student, pupil((0.75, 0.25, 0.0)), direction=direction)
    without = loss(learner((0.5, 0.5)), pupil((0.75, 0.25)), direction=direction)
    assert found.value.item() == pytest.approx(without.value.item(), **FLOAT)
    found.value.backward()
    assert student.grad is not None and student.grad.isfinite().all() and student.grad[0, 2] == 0.0
    assert found.metrics == {"agreement": 1.0, "rest": 0.0}


def test_a_term_beyond_the_clip_counts_so_much_and_pulls_no_more() -> None:
    """Terms 0.9 ln 9 = 1.98 and 0.1 ln 1/9 = -0.22; the first is cut to 1."""
    student = learner((0.1, 0.9))
    found = loss(student, pupil((0.9, 0.1)), clip=1.0)
    assert found.value.item() == pytest.approx(1.0 + 0.1 * math.log(1 / 9), **FLOAT)
    found.value.backward()
    assert student.grad is not None and student.grad[0].tolist() == pytest.approx([0.0, -0.1])
