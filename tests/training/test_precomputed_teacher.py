"""What a teacher says before the first step: who it is, what is kept of it, and the loss made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from policies import LORA, answers, fixed, trained

from selfrefine.config import ObjectiveConfig
from selfrefine.engines.local import LocalEngine
from selfrefine.training.precomputed import taught


def test_the_teacher_is_the_policy_that_sampled_with_more_in_view(
    engine: LocalEngine, adapters: dict[str, Path]
) -> None:
    """Not the policy that training starts from, nor the reference, nor under the prompt that is learnt."""
    items = answers(engine)
    own = ObjectiveConfig(name="distil", settings={"distil": {"top_k": 3}})
    made = fixed(
        engine,
        items,
        own,
        start=adapters["accepted"],
        sampler=adapters["first"],
        reference=adapters["accepted"],
    )
    engine.use_adapter(adapters["first"])
    for item in made:
        assert item.taught is not None and item.taught.top_k == 3
        for place in range(len(item.completion_token_ids)):
            seen = torch.tensor([[*item.teacher_prompt_token_ids, *item.completion_token_ids[:place]]])
            with torch.inference_mode():
                best = engine.model(seen).logits[0, -1].log_softmax(-1).topk(3)
            assert list(item.taught.ids[3 * place : 3 * place + 3]) == best.indices.tolist()
            told = list(item.taught.logprobs[4 * place : 4 * place + 4])
            assert told[:3] == pytest.approx(best.values.tolist(), abs=2e-4)
            assert sum(map(math.exp, told)) == pytest.approx(1.0, abs=1e-5)
    engine.use_adapter(None)
    assert all(item.reference_logprobs is None and item.old_logprobs is None for item in made)


def test_who_sees_no_more_than_the_policy_teaches_it_nothing(engine: LocalEngine) -> None:
    """Teacher and policy alike: no loss, and not even a gradient."""
    items = [replace(i, teacher_prompt_token_ids=i.prompt_token_ids) for i in answers(engine)]
    for direction in ("forward", "reverse"):
        own = ObjectiveConfig(name="distil", settings={"distil": {"direction": direction}})
        [row] = trained(engine, items, own, steps=1, clip=0.0)
        assert row.loss == pytest.approx(0.0, abs=1e-6) and row.grad_norm == pytest.approx(0.0, abs=1e-5)
        assert row.metrics["agreement"] == 1.0 and 0.0 < row.metrics["rest"] < 1.0


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_with_the_whole_vocabulary_it_is_the_divergence_of_two_softmaxes(
    engine: LocalEngine, adapters: dict[str, Path], direction: str
) -> None:
    """Loss and gradient of every adapter tensor, by whole tables of logits and autograd."""
    items, grads = answers(engine), dict[str, torch.Tensor]()
    own = ObjectiveConfig(name="distil", settings={"distil": {"direction": direction, "top_k": 303}})
    [row] = trained(
        engine,
        items,
        own,
        start=adapters["accepted"],
        sampler=adapters["first"],
        steps=1,
        clip=0.0,
        grads=grads,
    )
    total, tokens = torch.zeros(()), 0
    with engine.trainer().open(adapters["accepted"], LORA, 3) as wrapped:
        for item in items:
            answer = item.completion_token_ids
            with engine.trainer().as_policy(wrapped, adapters["first"]), torch.no_grad():
                q = table(wrapped, item.teacher_prompt_token_ids, answer)
            s = table(wrapped, item.prompt_token_ids, answer)
            terms = q.exp() * (q - s) if direction == "forward" else s.exp() * (s - q)
            total, tokens = total + terms.sum(), tokens + len(answer)
        (total / tokens).backward()
        expected = {n: p.grad.clone() for n, p in wrapped.named_parameters() if p.grad is not None}
    assert row.loss == pytest.approx(total.item() / tokens, rel=1e-4) and row.loss > 0.01
    assert grads.keys() == expected.keys()
    for name, grad in expected.items():
        assert (grads[name] - grad).norm() <= 2e-4 * row.grad_norm, name


def table(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return torch.Tensor(logits.log_softmax(-1))


def test_what_a_teacher_says_is_kept_to_the_bit() -> None:
    ids, logprobs = torch.tensor([[7, 1], [302, 0]]), torch.tensor([[-0.1, -3.0, -4.5], [0.0, -9.0, -1e30]])
    kept = taught(ids, logprobs)
    assert list(kept.ids) == [7, 1, 302, 0] and kept.top_k == 2
    assert torch.tensor(kept.logprobs.tolist()).view(2, 3).equal(logprobs)
