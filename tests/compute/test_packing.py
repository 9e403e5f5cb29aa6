"""A prompt that is computed once must teach exactly what it teaches when it is computed n times."""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest
import tiny
import torch
from wrapping import gradients, off, wrapped

from selfrefine.compute import forward, packing
from selfrefine.compute.forward import completion_logprobs
from selfrefine.compute.packing import Layout, _current, attend, laid_tokens, lay_out, why_not
from selfrefine.errors import EngineError

Pair = tuple[tuple[int, ...], tuple[int, ...]]


def tokens(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(5, 250) for _ in range(count))


def groups(sizes: tuple[int, ...], lengths: tuple[int, ...], prefix: int = 10) -> list[Pair]:
    """Groups of completions of the given lengths in turn, behind prompts that begin alike."""
    rng = random.Random(1)
    common = tokens(rng, prefix)
    pairs = []
    for g, size in enumerate(sizes):
        prompt = common + tokens(rng, 3 + 4 * g)
        pairs += [(prompt, tokens(rng, lengths[k % len(lengths)])) for k in range(size)]
    return pairs


def learnt(model: Any, rows: list[torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss (each row weighted differently, so that mixed-up rows show) and all its gradients."""
    model.zero_grad(set_to_none=True)
    loss = -torch.stack([(1 + i) * row.sum() for i, row in enumerate(rows)]).sum()
    loss.backward()
    return loss.item(), gradients(model)


CASES: dict[str, list[Pair]] = {
    "one completion each": groups((1, 1, 1), (5, 2, 7)),
    "two": groups((2, 2), (4, 4)),
    "eight, mixed, empty and one token": groups((8, 1, 3), (0, 1, 4, 9)),
    "nothing in common": groups((2, 3), (3, 6), prefix=0),
    "one, two and eight": groups((1, 2, 8), (0, 1, 4, 9)),  # the one alone is empty
    "one token each": groups((1, 2, 8), (1,)),
    "a single prompt": groups((8,), (6, 1)),
    "some alone and some not, nothing in common": groups((1, 3, 1), (7, 2, 1, 4), prefix=0),
    "prompt of one token": [((7,), (1, 2, 3)), ((7,), (4,))],
}


CHANGES: dict[str, dict[str, Any]] = {
    # A window that no row reaches the end of takes nothing away.
    "gemma2": {"sliding_window": 512, "attn_logit_softcapping": None},
    "gemma3": {"sliding_window": 512},
    "gemma3n": {"sliding_window": 512},
    "gpt2": {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "summary_first_dropout": 0.0},
}
LEARNING = {"gpt2": 2 * 2 * 4, "gemma3n": 92}
"""Tensors that learn: A and B of 7 layers in 2 blocks, but GPT-2 has 4 in a block, and 18 of Gemma 3n's 110
have no effect (and so no gradient) while a scale of its own is at its initial 0."""


@functools.cache
def learner(kind: str) -> Any:
    made = wrapped(kind, CHANGES.get(kind)).train()
    return made.double() if kind == "gemma3n" else made  # so deep that float32 rounds to half the bound


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt2", "gemma2", "gemma3", "gemma3n"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("joint_tokens", [256, 0])
def test_shared_rows_teach_every_adapter_tensor_what_separate_rows_do(
    kind: str, case: str, joint_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all siblings in one row of attention, and with a row each, which long ones take.

    The traps: B = 0 hides what reaches A, and the gradient of a small k_proj.B may be all wrong in a norm
    over all tensors together.
    """
    monkeypatch.setattr(packing, "JOINT_TOKENS", joint_tokens)
    model = learner(kind)
    assert all(parameter.requires_grad == ("lora_" in name) for name, parameter in model.named_parameters())
    pairs = CASES[case]
    packed = forward._shared_rows(model, pairs)
    assert packed is not None and why_not(model, 64) is None
    loss, found = learnt(model, packed)
    plain_loss, expected = learnt(model, forward._padded_rows(model, pairs))
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    errors = off(found, expected)
    assert len(errors) == LEARNING.get(kind, 2 * 2 * 7)
    assert max(errors.values()) < 1e-5, max(errors, key=errors.__getitem__)
    assert [len(row) for row in packed] == [len(completion) for _, completion in pairs]


def test_a_prompt_is_laid_once_and_what_prompts_share_too() -> None:
    common = tuple(range(100, 110))
    pairs = [((*common, 1), (5, 6)), ((*common, 1), (7,)), ((*common, 2, 3), (8,))]
    layout, predictors = lay_out(pairs, "cpu")
    assert layout.ids == [*common, 1, 2, 3, 5, 6, 7, 8]
    assert layout.positions == [*range(10), 10, 10, 11, 11, 12, 11, 12]
    # The token before a completion's first is its prompt's last, wherever that lies.
    assert predictors == [[10, 13], [10], [12]]
    assert laid_tokens(pairs) == len(layout.ids)


def test_where_nothing_is_saved_rows_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single pair, or equal lengths with nothing in common: sharing is then only a detour."""
    model, taken = tiny.model(), []
    for name in ("_shared_rows", "_padded_rows"):
        way = getattr(forward, name)
        monkeypatch.setattr(forward, name, lambda *a, name=name, way=way: taken.append(name) or way(*a))
    cases: list[list[Pair]] = [
        [((1, 2, 3), (4, 5))],
        [((1, 2), (3,)), ((4, 5), (6,))],
        [((1, 2), (3,)), ((4, 5), (6, 7))],
        [((1, 2), (3,)), ((1, 2), (4,))],
    ]
    for pairs in cases:
        completion_logprobs(model, pairs)
    assert taken == ["_padded_rows", "_padded_rows", "_shared_rows", "_shared_rows"]


def test_a_long_answer_does_not_make_all_rows_as_long() -> None:
    """Peak memory follows the tokens: ten short rows beside one long one are not padded to it."""
    pairs = [((*range(20), i), (7,) * (1000 if i == 5 else 30)) for i in range(11)]
    layout, _ = lay_out(pairs, "cpu")
    assert sum(family.own_nC.numel() for family in layout.families) <= 1.5 * len(layout.ids)


@pytest.mark.parametrize(
    ("kind", "why"),
    [("gemma2", "soft-capped"), ("gemma3", "sliding window"), ("mistral", "sliding window")],
)
def test_what_cannot_be_packed_takes_padded_rows(kind: str, why: str) -> None:
    """A window that slides over the packed row would see other completions or too little of the prompt."""
    model = tiny.model(kind)
    reason = why_not(model, 4096)
    assert reason is not None and why in reason
    pairs = CASES["eight, mixed, empty and one token"]
    for row, plain in zip(completion_logprobs(model, pairs), forward._padded_rows(model, pairs), strict=True):
        torch.testing.assert_close(row, plain, rtol=1e-4, atol=1e-4)


def test_dropout_takes_padded_rows() -> None:
    model = tiny.model()
    model.add_module("extra", torch.nn.Dropout(0.1))
    assert why_not(model.train(), 10) == "dropout is on"
    assert why_not(model.eval(), 10) is None


def test_a_model_that_ignores_the_exchange_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of a model with attention code of its own would be plausible and wrong."""
    monkeypatch.setattr(Layout, "calls", property(lambda self: 0, lambda self, value: None), raising=False)
    model = tiny.model()
    # Before anything is cut: a process that goes on after a kill must cut its first step as the others.
    assert forward.cut(model, CASES["two"], 10**6) == forward.by_budget(CASES["two"], 10**6, shared=False)
    assert why_not(model, 4) == "the model has its own way to compute attention"
    rows = completion_logprobs(model, CASES["two"])
    for row, plain in zip(rows, forward._padded_rows(model, CASES["two"]), strict=True):
        torch.testing.assert_close(row, plain)
    with pytest.raises(EngineError, match="ignored the packed rows"):
        forward._shared_rows(model, CASES["two"])


def test_the_models_own_attention_is_back_afterwards() -> None:
    model = tiny.model()
    before = model.config._attn_implementation
    completion_logprobs(model, CASES["two"])
    assert model.config._attn_implementation == before


def test_what_attention_is_asked_beyond_its_arguments_is_not_ignored() -> None:
    """Sinks and learned biases come as keywords and masks; logprobs without them look right and are wrong."""
    layout, _ = lay_out(CASES["two"], "cpu")
    _current.append(layout)
    states = torch.randn(1, 4, len(layout.ids), 8)
    try:
        for asked in ({"attention_mask": None}, {"attention_mask": None, "s_aux": torch.zeros(4)}):
            attend(None, states, states, states, **asked)  # type: ignore[arg-type]
        attend(None, states, states, states, torch.zeros(1, 1, 1, 1))
    finally:
        _current.pop()
    assert layout.calls == 1


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_dropout_that_the_code_passes_to_a_function_is_seen(rate: float) -> None:
    model = tiny.model("llama", attention_dropout=rate).train()
    assert (why_not(model, 10) == "dropout is on") is bool(rate)
