"""fluency and p-true on a deterministic stand-in: a token is a character, its logprob is in a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from making import made
from msgspec.structs import replace

from selfrefine.config import LoraConfig, Sampling
from selfrefine.engines.base import Completion, Request
from selfrefine.errors import ConfigError, EngineError
from selfrefine.records import Message, Sample, Task
from selfrefine.rewards import p_true

END = 0


class CharEngine:
    capabilities = frozenset({"score"})
    signature = "char"
    policy = "adapted"
    context_tokens = 400

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bool]] = []

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return self.encode_text("".join(f"<{m.role}>{m.content}" for m in messages) + "<assistant>")

    def encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def encode_answer(self, text: str) -> tuple[int, ...]:
        return (*self.encode_text(text), END)

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(chr(i) for i in token_ids if i != END)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        raise NotImplementedError

    def score(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, bare: bool = False
    ) -> list[tuple[float, ...]]:
        """Likes Y at 0.6 and N at 0.2 after a prompt with "2", the reverse else; a space is impossible."""
        out = []
        for prompt, completion in zip(prompts, completions, strict=True):
            text = self.decode(prompt)
            self.asked.append((text, self.decode(completion), bare))
            yes = 0.6 if "<assistant>2<" in text else 0.2
            table = {ord("Y"): yes, ord("N"): 0.8 - yes, ord("a"): 0.5, ord("b"): 0.125, END: 1.0}
            out.append(tuple(math.log(table[i]) if i in table else -math.inf for i in completion))
        return out


def sample(text: str, **fields: Any) -> Sample:
    return Sample(
        id="s", task=Task(id="t", prompt=(Message(role="user", content="1+1?"),)), text=text, **fields
    )


def test_fluency_is_the_geometric_mean_probability_under_the_bare_model() -> None:
    engine = CharEngine()
    rows = [sample("ab"), sample("ab", finish_reason="length"), sample("a b"), sample("a" * 500)]
    whole, cut, impossible, long = made("fluency", engine).score(rows)
    assert whole.value == pytest.approx((0.5 * 0.125 * 1.0) ** (1 / 3))  # the end of turn is a token
    assert whole.detail == "-0.924 nats per token"
    assert cut.value == pytest.approx((0.5 * 0.125) ** 0.5)  # a clipped answer never ended
    assert impossible.value is None
    assert "context" in str(long.error)
    assert all(bare for _, _, bare in engine.asked)  # the policy would reward its own habits


def test_fluency_trusts_the_rows_ids_only_while_they_say_the_text() -> None:
    engine = CharEngine()
    ids: dict[str, Any] = {"prompt_token_ids": (ord("P"),), "token_ids": (ord("a"), END)}
    made("fluency", engine).score([sample("a", **ids), sample("b", **ids)])
    assert [(prompt, answer) for prompt, answer, _ in engine.asked] == [
        ("P", "a"),
        ("<user>1+1?<assistant>", "b"),  # edited by hand: encoded anew
    ]


def test_p_true_weighs_yes_against_no() -> None:
    engine = CharEngine()
    rows = [sample("2"), sample("3"), sample("x" * 500)]
    right, wrong, long = made("p-true", engine).score(rows)
    assert right.value == pytest.approx(0.6 / 0.8)
    assert wrong.value == pytest.approx(0.2 / 0.8)
    assert long.value is None
    assert right.detail == "p(Yes) 0.750 of p(Yes)+p(No) 0.800"
    # one call per word and row, on the chat with the answer in its own turn, under the present policy
    question = f"<user>{p_true.QUESTION}<assistant>"
    assert engine.asked == [
        (f"<user>1+1?<assistant>{answer}{question}", word, False) for answer in "23" for word in "YN"
    ]


def test_p_true_needs_two_distinct_words_and_a_model() -> None:
    class Mute(CharEngine):
        def encode_text(self, text: str) -> tuple[int, ...]:
            return (1,)

    with pytest.raises(EngineError):
        made("p-true", Mute())
    for name in ("fluency", "p-true"):
        with pytest.raises(ConfigError, match=f"{name} needs a model"):
            made(name)


def test_fluency_of_a_run_that_starts_from_an_adapter_is_still_that_of_the_bare_model(tmp_path: Path) -> None:
    """The start is round 0's policy, and it is not the judge: what it was taught would be fluent."""
    engine = tiny.engine()
    row = sample("the answer", prompt_token_ids=engine.encode_text("what is"))
    row = replace(row, token_ids=engine.encode_answer(row.text))
    with engine.trainer().open(None, LoraConfig(r=4), 0) as opened:
        for name, parameter in opened.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(0.2)
        engine.trainer().save(opened, tmp_path / "start")
    engine.use_adapter(tmp_path / "start")
    with torch.no_grad():
        ids = torch.tensor([[*row.prompt_token_ids, *row.token_ids]])
        places = slice(len(row.prompt_token_ids) - 1, -1)
        tables = [model(ids).logits[0, places].log_softmax(-1) for model in (tiny.model(), engine.model)]
    answer = torch.tensor(row.token_ids)[:, None]
    expected, start = (table.gather(-1, answer).mean().exp().item() for table in tables)
    [reward] = made("fluency", engine).score([row])
    assert reward.value == pytest.approx(expected, rel=1e-4) and reward.value != pytest.approx(start, rel=0.1)
