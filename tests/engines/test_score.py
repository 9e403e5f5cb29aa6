"""`score`: logprobs of given answers, each as a plain forward pass has it, a prompt computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import tiny
import torch

from selfrefine.compute.head import gives_logits
from selfrefine.errors import EngineError


def plain_logprobs(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> list[float]:
    with torch.no_grad():
        table = model(torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
    return [table[len(prompt) - 1 + k, t].item() for k, t in enumerate(completion)]


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3", "gpt2"])
def test_score_is_a_plain_forward_whatever_the_company(kind: str) -> None:
    """Ragged rows are padded; neither the padding nor the other rows may show in a logprob."""
    engine = tiny.engine(kind)
    pairs = [((1, 2, 3), (4, 5)), ((9,) * 30, tuple(range(20))), ((8,), (7,)), ((3, 4), ())]
    together = engine.score([p for p, _ in pairs], [c for _, c in pairs])
    for (prompt, completion), row in zip(pairs, together, strict=True):
        assert row == pytest.approx(plain_logprobs(engine.model, prompt, completion), abs=1e-5)
        assert engine.score([prompt], [completion]) == [pytest.approx(row, abs=1e-5)]
    assert engine.score([], []) == []
    with pytest.raises(EngineError, match="prompt is empty"):
        engine.score([(1,), ()], [(2, 3), (2,)])


def test_score_computes_a_prompt_once_for_its_eight_answers() -> None:
    """The trap: right numbers at eight times the price, which no test of values sees."""
    engine = tiny.engine()
    assert gives_logits(engine.model)  # found out by a pass of its own
    seen: list[int] = []
    hook = engine.model.register_forward_pre_hook(
        lambda _module, _args, inputs: seen.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    long, short = tuple(range(50, 90)), tuple(range(200, 212))
    answers = [tuple(range(10 * k, 10 * k + k)) for k in range(1, 9)]  # 1 + 2 + ... + 8 = 36 tokens
    alone = engine.score([long] * 8, answers)
    assert seen == [40 + 36]  # not 8 * 40 + 36
    seen.clear()
    # In turn, so that an answer that is held against the other prompt shows.
    prompts = [prompt for _ in answers for prompt in (long, short)]
    both = engine.score(prompts, [answer for answer in answers for _ in range(2)])
    assert seen == [40 + 36 + 12 + 36]
    hook.remove()
    for k, answer in enumerate(answers):
        one, other = both[2 * k : 2 * k + 2]
        assert alone[k] == pytest.approx(one, abs=1e-5)
        assert one == pytest.approx(plain_logprobs(engine.model, long, answer), abs=1e-5)
        assert other == pytest.approx(plain_logprobs(engine.model, short, answer), abs=1e-5)
