"""Rows: what stands in one, in which order, and what earlier versions wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET

from selfrefine.config import GenerateConfig
from selfrefine.engines.scripted import Scripted
from selfrefine.errors import DataError
from selfrefine.records import decode_sample, encode
from selfrefine.rewards.base import RewardOptions
from selfrefine.steps.generate import generate
from selfrefine.steps.reward import build, parse_spec, score
from selfrefine.tasks import TaskOptions, load

PROMPT = [{"role": "user", "content": "What is 3 + 4?"}]
ENTRY = {"question": "What is 3 + 4?", "answer": "7", "metadata": {"difficulty": {"num_terms": [2, 2]}}}
OLD = {
    "v": 1,
    "id": "a.r1.s0",
    "task": {"id": "a", "prompt": PROMPT, "meta": {"gym": {"dataset": "chain_sum", "entry": ENTRY}}},
    "messages": PROMPT,
    "prompt_token_ids": [5, 6],
    "text": "It is 7.",
    "token_ids": [7],
    "logprobs": [-0.5],
}
"""As rows were before they were trimmed: the question three times, the answer in `meta` alone."""


def row(**changed: Any) -> Any:
    return decode_sample(json.dumps(OLD | changed).encode(), "rows.jsonl:1")


def test_a_row_holds_its_question_once_and_ends_with_ids_and_logprobs() -> None:
    """Such a row took 1,800 bytes, of which 30 were its answer."""
    small = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    tasks = list(load("gym:chain_sum", TaskOptions(n=4, suffix=" Just the number.", settings=small)))
    for sample in generate(tasks, Scripted(), GenerateConfig(n=1), 0):
        line = encode(sample)
        assert line.count(b"Just the number") == 1
        assert list(json.loads(line))[-3:] == ["prompt_token_ids", "token_ids", "logprobs"]
        again = decode_sample(line, "x:1")
        assert again == sample and again.context == sample.task.prompt


def test_rows_of_an_earlier_version_mean_what_they_meant() -> None:
    old = row()
    assert [m.content for m in old.context] == ["What is 3 + 4?"]
    assert (old.prompt_token_ids, old.token_ids, old.logprobs) == ((5, 6), (7,), (-0.5,))
    [scored] = score([old], build([parse_spec("gym")], RewardOptions()))
    assert scored.reward == 1.0
    told = json.loads(encode(scored))
    assert (told["messages"], told["task"]["meta"]) == (PROMPT, OLD["task"]["meta"])  # type: ignore[index]


@pytest.mark.parametrize("messages", ["absent", None, []])
def test_without_messages_a_row_answers_its_tasks_prompt(messages: Any) -> None:
    """`jq 'del(.messages)'`, `jq '.messages = null'`, and what other programs write for nothing."""
    given = {key: value for key, value in OLD.items() if key != "messages"}
    found = decode_sample(
        json.dumps(given | ({} if messages == "absent" else {"messages": messages})).encode(), "x:1"
    )
    assert [m.content for m in found.context] == ["What is 3 + 4?"]
    assert ("messages" in json.loads(encode(found))) == (messages != "absent")


def test_messages_of_their_own_win() -> None:
    asked = [{"role": "system", "content": "Be brief."}, *PROMPT]
    assert [m.role for m in row(messages=asked).context] == ["system", "user"]


def test_foreign_columns_travel_and_a_row_without_any_has_no_field_for_them() -> None:
    assert row().extra is UNSET
    assert encode(row(mine=1.50, task=OLD["task"] | {"theirs": [1]})).count(b"theirs") == 1  # type: ignore[operator]


@pytest.mark.parametrize("row", [{"prompt": "2+2?"}, {"concepts": ["dog"]}, {"chosen": [], "rejected": []}])
def test_a_task_in_place_of_an_answer_is_called_one(row: dict[str, Any]) -> None:
    """Told that it lacks id, task and text, one would add these instead of running `generate`."""
    with pytest.raises(DataError, match=r"t:1: this is a task.*selfrefine generate"):
        decode_sample(json.dumps(row).encode(), "t:1")
