"""What is learnt from decides everything after it: each row that falls out is counted, by its reason."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from selfrefine.config import SelectConfig
from selfrefine.records import Message, Sample, Task
from selfrefine.steps.select import replay, select, why_nothing

FATES = ("errors", "truncated", "unscored", "below", "duplicates", "over_the_cap", "selected")


def row(task: str, index: int, reward: float | None, **fields: Any) -> Sample:
    prompt = (Message(role="user", content=f"question {task}"),)
    given: dict[str, Any] = {"text": f"answer {index}", "prompt_token_ids": (1, 2), "token_ids": (3, 4, 5)}
    return Sample(
        id=f"{task}.r1.s{index}",
        task=Task(id=task, prompt=prompt),
        index=index,
        reward=reward,
        **given | fields,
    )


def group(task: str, *rewards: float | None) -> list[Sample]:
    return [row(task, k, reward) for k, reward in enumerate(rewards)]


def chosen(rows: list[Sample], **settings: Any) -> list[str]:
    found = select(rows, SelectConfig(**settings))
    # Nothing disappears: what is not selected has a reason.
    assert sum(found.counts.get(fate, 0) for fate in FATES) == found.counts["samples"] == len(rows)
    return [sample.id for sample in found.rows]


def test_best_of_n_takes_the_best_above_the_groups_minimum() -> None:
    assert chosen(group("a", 0.2, 0.9, 0.5, 0.9)) == ["a.r1.s1"]  # of equals the first
    assert chosen(group("a", 0.2, 0.9, 0.5, 0.9), max_per_prompt=2) == ["a.r1.s1", "a.r1.s3"]
    assert chosen(group("a", 0.2, 0.9, 0.5, 0.2), max_per_prompt=9) == ["a.r1.s1", "a.r1.s2"]


@pytest.mark.parametrize("rewards", [(0.0, 0.0), (1.0, 1.0), (0.5,)])
def test_a_group_without_spread_teaches_nothing(rewards: tuple[float, ...]) -> None:
    """The best of three zeros is a zero: without a floor, best-of-n would learn a wrong answer."""
    found = select(group("a", *rewards), SelectConfig())
    assert found.rows == [] and found.counts["prompts_without_spread"] == 1
    assert "of one reward only" in why_nothing(found.counts)


def test_a_floor_takes_the_place_of_the_minimum() -> None:
    assert chosen(group("a", 1.0, 1.0), min_reward=1.0) == ["a.r1.s0"]
    assert chosen(group("a", 0.4, 0.9), min_reward=1.0) == []


def test_an_unscored_row_is_no_zero() -> None:
    """Oxen's -1 for an unparsed judgement: as a 0 it would lift its neighbours above the minimum."""
    assert chosen(group("a", None, 0.5, 0.5)) == []
    found = select(group("a", None, 0.5, 0.7), SelectConfig())
    assert [r.id for r in found.rows] == ["a.r1.s2"]
    assert (found.counts["unscored"], found.counts["below"]) == (1, 1)


@pytest.mark.parametrize("strategy", ["best-of-n", "threshold", "all"])
def test_truncated_failed_and_unscored_rows_never_get_through(strategy: Any) -> None:
    """An answer that was cut off teaches never to stop, however well it scored."""
    rows = [
        row("a", 0, 1.0, finish_reason="length"),
        row("a", 1, 1.0, finish_reason="error"),
        row("a", 2, 1.0, error="no room"),
        row("a", 3, None),
        row("a", 4, 0.0),
        row("a", 5, 1.0),
    ]
    settings = SelectConfig(strategy=strategy, min_reward=0.5)
    found = select(rows, settings)
    assert [r.index for r in found.rows] == [5]
    assert [found.counts[fate] for fate in FATES[:4]] == [2, 1, 1, 1]


def test_threshold_and_all() -> None:
    rows = group("a", 0.0, 0.5, 1.0) + group("b", 1.0, 1.0, 0.2)
    assert chosen(rows, strategy="threshold") == ["a.r1.s2", "b.r1.s0", "b.r1.s1"]
    assert chosen(rows, strategy="threshold", min_reward=0.5, max_per_prompt=1) == ["a.r1.s2", "b.r1.s0"]
    assert len(chosen(rows, strategy="all")) == 6
    assert len(chosen(rows, strategy="all", min_reward=0.5)) == 4


def test_equal_answers_to_a_prompt_count_once() -> None:
    rows = [row("a", 0, 0.0, text="x"), row("a", 1, 1.0, text="7"), row("a", 2, 1.0, text=" 7\n")]
    rows += [row("b", 0, 0.0, text="x"), row("b", 1, 1.0, text="7")]  # another prompt's 7 is another answer
    assert chosen(rows, max_per_prompt=5) == ["a.r1.s1", "b.r1.s1"]
    assert chosen(rows, max_per_prompt=5, dedupe=False) == ["a.r1.s1", "a.r1.s2", "b.r1.s1"]


def test_rows_of_a_task_need_not_stand_together_and_keep_their_order() -> None:
    rows = [row("a", 0, 0.0), row("b", 0, 1.0), row("a", 1, 1.0), row("b", 1, 0.0)]
    assert chosen(rows) == ["b.r1.s0", "a.r1.s1"]


def test_a_revision_is_learnt_as_the_answer_to_the_drafts_prompt() -> None:
    """Trained on the revision turn, the policy would only learn to answer well after a bad draft."""
    asked = (Message(role="user", content="question a"),)
    draft = row("a", 0, 0.0, messages=asked, prompt_token_ids=(9, 9))
    turn = (Message(role="user", content="here is your draft, revise it"),)
    revised = row("a", 0, 1.0, messages=turn, prompt_token_ids=(8, 8, 8), logprobs=(-0.1, -0.1, -0.1))
    revised = replace(revised, id="a.r1.s0.v1", parent_id="a.r1.s0", text="answer 0 revised")
    [learnt] = select([draft, revised], SelectConfig()).rows
    assert (learnt.id, learnt.text, learnt.token_ids) == ("a.r1.s0.v1", "answer 0 revised", (3, 4, 5))
    assert (learnt.messages, learnt.prompt_token_ids) == (asked, (9, 9))
    assert learnt.logprobs is None  # they belong to the prompt it was sampled under
    # The draft was filtered out on the way: then the turn itself is what can be learnt.
    [alone] = select([revised], SelectConfig(strategy="all")).rows
    assert alone.prompt_token_ids == (8, 8, 8) and alone.logprobs == (-0.1, -0.1, -0.1)


def test_why_nothing_names_the_cause() -> None:
    def why(rows: list[Sample], **settings: Any) -> str:
        return why_nothing(select(rows, SelectConfig(**settings)).counts)

    assert why([]) == "there are no samples"
    assert "raise generate.max_new_tokens" in why([row("a", 0, 1.0, finish_reason="length")])
    assert "no answer could be scored" in why(group("a", None, None))
    assert "no prompt could be answered" in why([row("a", 0, None, error="no room")])
    assert "reaches select.min_reward" in why(group("a", 0.1, 0.2), min_reward=0.9)
    # A judge that cannot be read scores 2 of 8: those two say nothing of why there is nothing.
    assert "6 of 8 answers could not be scored" in why(group("a", *[None] * 6, 0.5, 0.5), strategy="pairs")


def test_replay_is_a_share_of_the_training_tokens_and_costs_no_more_each_round() -> None:
    """5 tokens a row: 12 current rows are 60 tokens; a share of 0.25 is 20 of 80, that is 4 rows."""
    current = group("now", *[1.0] * 12)
    for past in (group("old", *[1.0] * 40), group("old", *[1.0] * 400)):
        taken = replay(current, past, 0.25, seed=7)
        assert len(taken) == 4
        assert [r.index for r in taken] == sorted({r.index for r in taken})
        assert taken == replay(current, past, 0.25, seed=7) != replay(current, past, 0.25, seed=8)
    assert replay(current, group("old", 1.0, 1.0), 0.0, seed=7) == []
    # Another model's critique has no ids here; by its text it costs 3 tokens and its prompt some.
    foreign = [
        replace(one, prompt_token_ids=(), token_ids=(), text="x" * 12) for one in group("old", *[1.0] * 99)
    ]
    assert replay(current, foreign, 0.0, seed=7) == []
    assert 0 < len(replay(current, foreign, 0.25, seed=7)) < 7
    assert len(replay(current, group("old", 1.0, 1.0), 0.9, seed=7)) == 2
