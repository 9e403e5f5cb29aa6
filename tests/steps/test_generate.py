"""Samples: who they are, what they were drawn from, and that neighbours do not matter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from msgspec import UNSET

from selfrefine.config import GenerateConfig, Sampling
from selfrefine.engines.base import Completion, Request
from selfrefine.engines.scripted import ASSISTANT, END, SYSTEM, USER, Scripted
from selfrefine.errors import EngineError
from selfrefine.records import Message, Task
from selfrefine.seeds import row_seed
from selfrefine.steps.generate import Drawn, drawn, generate, task_units

DRAW = GenerateConfig(n=3, max_new_tokens=16)


def ask(id: str, text: str, *before: Message) -> Task:
    return Task(id=id, prompt=(*before, Message(role="user", content=text)), references=("7",))


SUMS = [ask("a", "What is 3 + 4?"), ask("b", "What is 9 + 9?")]


def test_ids_say_task_round_and_index() -> None:
    rows = generate(SUMS, Scripted(), DRAW, 5, round_index=2)
    assert [row.id for row in rows] == [f"{t}.r2.s{k}" for t in "ab" for k in range(3)]
    assert [(row.task.id, row.round, row.index) for row in rows[:4]] == [
        ("a", 2, 0),
        ("a", 2, 1),
        ("a", 2, 2),
        ("b", 2, 0),
    ]
    assert rows[0].task == SUMS[0] and rows[0].parent_id is None


def test_every_sample_names_the_policy_that_drew_it() -> None:
    """A script that ignored its model argument sampled the old model for ever (Oxen)."""
    one, other = Scripted(), Scripted([{"match": "", "answers": ["x"]}])
    assert one.policy != other.policy
    for engine in (one, other):
        for row in generate(SUMS, engine, DRAW, 5):
            assert (row.policy, row.engine) == (engine.policy, engine.signature)


def test_a_seed_is_the_runs_the_stages_the_rounds_the_tasks_and_the_indexs() -> None:
    rows = generate(SUMS, Scripted(), DRAW, 5, round_index=2)
    assert [row.seed for row in rows] == [row_seed(5, "generate", 0, 2, t, k) for t in "ab" for k in range(3)]
    others = [
        generate(SUMS, Scripted(), DRAW, 6, round_index=2),
        generate(SUMS, Scripted(), DRAW, 5, round_index=1),
        generate(SUMS, Scripted(), DRAW, 5, round_index=2, stage="gate"),
    ]
    seeds = {row.seed for some in [rows, *others] for row in some}
    assert len(seeds) == 24 and all(0 <= seed < 2**53 for seed in seeds)


def test_neighbours_batches_and_the_number_of_samples_do_not_matter() -> None:
    together = {row.id: row for row in generate(SUMS, Scripted(), DRAW, 5)}
    alone = generate(SUMS[1:], Scripted(), DRAW, 5)
    more = generate(SUMS, Scripted(), GenerateConfig(n=9, max_new_tokens=16), 5)
    for row in [*alone, *(row for row in more if row.index < 3)]:
        assert together[row.id] == row


def test_a_system_message_goes_before_a_prompt_that_has_none() -> None:
    own = ask("own", "What is 1 + 1?", Message(role="system", content="mine"))
    settings = GenerateConfig(n=1, max_new_tokens=16, system="ours")
    bare, kept = generate([SUMS[0], own], Scripted(), settings, 0)
    assert [(m.role, m.content) for m in bare.context] == [("system", "ours"), ("user", "What is 3 + 4?")]
    assert [m.content for m in kept.context] == ["mine", "What is 1 + 1?"]
    assert kept.messages is UNSET and bare.messages == bare.context  # a prompt stands in its row once
    assert bare.prompt_token_ids == (
        SYSTEM,
        *b"ours",
        END,
        USER,
        *b"What is 3 + 4?",
        END,
        ASSISTANT,
    )
    assert bare.task.prompt == SUMS[0].prompt  # the task stays what it was


def test_token_ids_have_the_stop_token_and_text_has_not() -> None:
    [row] = generate(SUMS[:1], Scripted(), GenerateConfig(n=1, temperature=0), 0)
    assert (row.text, row.token_ids, row.finish_reason) == ("7", (*b"7", END), "stop")
    assert row.logprobs is not None and len(row.logprobs) == 2
    cut = GenerateConfig(n=1, temperature=0, max_new_tokens=1)
    [short] = generate(SUMS[1:], Scripted(), cut, 0)
    assert short.finish_reason == "length" and len(short.token_ids) == 1


class Awkward(Scripted):
    """Finishes in its own order, or forgets."""

    def __init__(self, forget: bool = False) -> None:
        super().__init__()
        self.forget = forget

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        done = [one for batch in super().generate(requests, sampling) for one in batch]
        for one in done[: 1 if self.forget else 0 : -1]:
            yield [one]
        if not self.forget:
            yield done[:1]


def test_the_order_is_the_tasks_whatever_finishes_first() -> None:
    seen: list[Any] = []
    rows = generate(SUMS, Awkward(), DRAW, 5, on_rows=seen.extend)
    assert rows == generate(SUMS, Scripted(), DRAW, 5)
    assert len(seen) == 6


def test_a_lost_answer_is_an_error_not_a_shorter_list() -> None:
    with pytest.raises(EngineError, match="4 answers to 6 requests"):
        generate(SUMS, Awkward(forget=True), DRAW, 5)


def test_a_prompt_without_room_gives_error_rows_and_the_rest_goes_on() -> None:
    rows = generate([ask("long", "x" * 50), SUMS[0]], Scripted(context_tokens=40), DRAW, 5)
    assert [row.finish_reason for row in rows] == ["error"] * 3 + ["stop"] * 3
    assert "context holds 40" in (rows[0].error or "") and rows[0].text == ""
    tokens = sum(len(row.token_ids) for row in rows)
    assert drawn(rows) == Drawn(
        samples=6,
        tasks=2,
        errors=3,
        tokens=tokens,
        nats=-math.fsum(logprob for row in rows for logprob in row.logprobs or ()),
        rated=tokens,
    )


def test_units_hold_as_many_tasks_as_their_tokens_allow() -> None:
    tasks = [ask(f"t{i}", "x") for i in range(7)]
    units = list(task_units(tasks, DRAW, unit_tokens=3 * 16 * 2))
    assert [[task.id for task in unit] for unit in units] == [
        ["t0", "t1"],
        ["t2", "t3"],
        ["t4", "t5"],
        ["t6"],
    ]
    assert [len(unit) for unit in task_units(tasks, DRAW, unit_tokens=1)] == [1] * 7
