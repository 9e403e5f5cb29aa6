"""The condition language: what it says of a row, what null does to it, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import answer, scored

from selfrefine.errors import UsageError
from selfrefine.query.rows import RowFile, Seen, seen
from selfrefine.query.where import parse
from selfrefine.records import Critique, Reward, encode

FILE = RowFile(place="round-002", stage="reward", path=Path("round-002/reward.jsonl"))


def row(**more: object) -> Seen:
    critique = Critique(text="Off by one", verdict="revise", score=0.25)
    rewards = (Reward(name="exact", value=0.0), Reward(name="mine.py:f", value=None, error="broken"))
    made = answer("b", 2, 1, text="sorry, 7", reward=0.1, critiques=(critique,), rewards=rewards, **more)
    return seen(encode(made), "here:1")


TRUE = [
    'reward < 0.2 and tag.op == "sub"',
    "round == 2 and stage == 'reward' and index == 1",
    'id == "b.r2.s1" and task.id == "b"',
    '"sorry" in text and not contains(text, "Sorry")',
    'text.startswith("sorry") and endswith(text, "7")',
    r'matches(text, "\d$")',
    "len(text) == 8 and tokens == 2",
    'tag.op in ["add", "sub"]',
    "tag.digits >= 1 and tag.digits < 2",
    'critique.verdict == "revise" and critique.score < 0.5 and "one" in critique.text',
    "reward.exact == 0 and reward.length == null",
    'reward["mine.py:f"] == null',
    "0 < reward < 0.2",
    "reward in [0.1, 1]",
    'finish_reason != "length" or false',
    "critiques == 1 and prompt != reference and error == null",
]


@pytest.mark.parametrize("text", TRUE)
def test_what_is_true_of_the_row(text: str) -> None:
    assert parse(text)(row(), FILE)
    assert not parse(f"not ({text})")(row(), FILE)


@pytest.mark.parametrize("op", ["<", "<=", ">", ">=", "==", "!="])
def test_a_comparison_with_a_null_is_false(op: str) -> None:
    """Trap: SQL and Python disagree about `null != 1`, and a row without a score is not a bad one."""
    unscored = seen(encode(scored("a", 1, 1, None)), "here:1")
    assert not parse(f"reward {op} 0.5")(unscored, FILE)
    assert parse("reward == null")(unscored, FILE) and not parse("reward != null")(unscored, FILE)


def test_a_tag_that_is_no_number_is_not_compared_with_one() -> None:
    assert not parse("tag.op > 0")(row(), FILE) and not parse("tag.op <= 0")(row(), FILE)


REFUSED = {
    "rewrad < 1": "did you mean reward?",
    "tags.op == 'x'": "did you mean tag.op?",
    "reward = 1": "write == to compare",
    "reward < 0.2 AND index == 1": "write and, or, not",
    'text contains "x"': 'contains(text, "sorry")',
    "reward": "not a condition",
    'reward < "x"': "compares a number with a text",
    "reward < null": "never true",
    "reward is None": "== null",
    'matches(text, "[")': "not a regular expression",
    "matches(text, prompt)": "a pattern is a text",
    'contain(text, "x")': "did you mean contains?",
    '__import__("os").system("id") == 0': "neither a field",
    'text.__class__.__name__ == "str"': "neither a field",
    "(lambda: 1)() == 1": "neither a field",
    "[x for x in text] == 1": "neither a field",
    'f"{text}" == 1': "neither a field",
    "reward + 1 > 1": "neither a field",
    "9 ** 9 ** 9 == 1": "neither a field",
    "tag.op == sub": "a text stands in quotes",
    "": "not a condition",
    "a\0b": "zero byte",
    "(" * 5_000: "at most",
    "not " * 900 + "true": "nested too deeply",
    "-" * 3_000 + "1 < reward": "nested too deeply",
    "(" * 300 + "true" + ")" * 300: "",
    "text == '\ud83d'": "not UTF-8",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused_says_what_to_write(text: str) -> None:
    """Nothing of it may run, be computed or take the process with it."""
    with pytest.raises(UsageError) as refused:
        parse(text)
    assert REFUSED[text] in str(refused.value)
