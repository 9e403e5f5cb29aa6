"""What is learnt from decides everything after it: each row that falls out is counted, by its reason."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from selfrefine.config import SelectConfig
from selfrefine.layers import parse_set
from selfrefine.records import Message, Reward, Sample, Task
from selfrefine.steps.select import replay, select
from selfrefine.steps.select_nothing import why_nothing

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


def why(rows: list[Sample], door: dict[str, Any] | None = None, **settings: Any) -> tuple[str, str]:
    """The causes, and what to try."""
    config = SelectConfig(**settings)
    told = why_nothing(rows, config, select(rows, config).counts, **(door or {}))
    causes, _, tries = told.partition("\n")
    return causes, tries


def many(n: int, reward: float | None, finish: Any = "stop", **fields: Any) -> list[Sample]:
    """n rows, two of each task."""
    first = Task(id="x", prompt=(Message(role="user", content="?"),), references=("7",))
    return [
        replace(row(f"{finish}{reward}-{i // 2}", i % 2, reward, finish_reason=finish, **fields), task=one)
        for i in range(n)
        for one in [replace(first, id=f"{finish}{reward}-{i // 2}")]
    ]


def test_the_cause_is_named_before_what_merely_took_more_rows() -> None:
    """It said: 410 of 768 answers were cut off, raise max_new_tokens. None of the other 358 was right."""
    rows = many(410, 0.0, "length") + many(358, 0.0)
    causes, tries = why(rows)
    assert causes == (
        "nothing to learn from 768 answers: none of 358 complete answers is right (every reward is 0); also "
        "410 of 768 answers were cut off at max_new_tokens, and none scored well"
    )
    for said in ("--recipe star", "more samples", "graded reward", "shorter answer format"):
        assert said in tries
    # Two complete answers of 128 say nothing; nor do two scored ones of eight.
    assert ": 126 of 128 answers were cut off" in why(many(126, 0.0, "length") + many(2, 0.0))[0]
    unread = group("a", *[None] * 6, 0.5, 0.5)
    assert ": 6 of 8 answers could not be scored" in why(unread, strategy="pairs")[0]
    # Some of what was cut off was right: then the limit is to blame, however few they are.
    assert ": 10 of 110 answers were cut off" in why(many(10, 1.0, "length") + many(100, 0.0))[0]


def test_where_all_were_cut_off_and_none_is_right_every_way_out_is_named() -> None:
    """It named two, as if a higher limit were all that a reward of 0 could need."""
    causes, tries = why(many(16, 0.0, "length", text="so " * 9))
    said = "16 of 16 answers were cut off at max_new_tokens, and none scored well"
    assert causes == f"nothing to learn from 16 answers: {said}"
    assert tries == (
        "try a shorter answer format (tasks.suffix), or a higher generate.max_new_tokens, or "
        "`selfrefine cycle --recipe star`, or a graded reward"
    )
    assert ", or best-of-n with a graded reward" in why(many(16, 0.0, "length"), strategy="threshold")[1]
    early = why(many(16, 0.0, "length", text="5\nQ: What is 3 + 4?\nA: 7"), {"in_run": True})[1]
    assert early.startswith("try a new run with --set 'generate.stop=[\"\\n\"]', or a shorter answer format")
    assert "--recipe star, or" in early
    assert "star" not in why(many(16, 0.5, "length"))[1]  # good ones were cut off: only the limit is to blame


def test_each_cause_has_its_own_way_out() -> None:
    assert why([])[0] == "there are no answers to select from"
    assert "1 of 1 answer failed" in why([row("a", 0, None, error="no room")])[0]
    assert "a higher generate.max_new_tokens" in why([row("a", 0, 1.0, finish_reason="length")])[1]
    causes, tries = why(group("a", 1.0, 1.0))
    assert "all answers to 1 prompt have the same reward (all 1)" in causes
    assert tries.startswith("try --min-reward 1, or harder tasks")  # it advised easier ones
    assert "(one answer per prompt)" in why(group("a", 1.0) + group("b", 0.0))[0]
    causes, tries = why(group("a", 0.1, 0.2999), min_reward=0.9)
    assert "none of 2 complete answers reaches reward 0.9 (the best has 0.300)" in causes
    assert "--min-reward 0.299" in tries  # rounded down: 0.3 would select nothing again
    assert chosen(group("a", 0.1, 0.2999), min_reward=0.299) == ["a.r1.s1"]
    assert "--min-reward" not in why(group("a", 0.0, 0.0), min_reward=0.5)[1]
    assert "--recipe star" not in why(group("a", 0.0, 0.0))[1]  # without references there is no hint to give
    assert "--recipe star" not in why(many(2, 0.0), {"hinted": True})[1]  # it was star
    # A row that was never scored is told from one whose scoring failed.
    never = [replace(one, rewards=()) for one in group("a", None, None)]
    assert "no row has a reward" in why(never)[0] and "selfrefine reward FILE" in why(never)[1]
    failed = [
        replace(one, rewards=(Reward(name="exact", value=None, error="no reference"),)) for one in never
    ]
    assert "2 of 2 answers could not be scored (exact: no reference)" in why(failed)[0]


def test_in_a_run_the_advice_is_what_can_be_done_there() -> None:
    """Its settings are frozen: "raise generate.n" could not be followed."""
    tries = why(group("a", 0.4, 0.4), {"in_run": True})[1]
    here = "try --set select.min_reward=0.4 --allow-drift in this run"
    assert tries == f"{here}, or a new run with more samples per prompt (-n)"
    assert why(many(2, 0.0), {"in_run": True})[1].startswith("try a new run with --recipe star, or more")


@pytest.mark.parametrize(
    ("text", "template", "stop"),
    [
        (" 5\nQ: What is 3 + 4?\nA: 7\nQ: What is", None, '["\\n"]'),
        (" It is 5. The sum of 3 and 4 is 7. The sum of\n", False, '["."]'),
        ("5.\nThe sum is 7.\nAnd so on and on", False, '["\\n", "."]'),
        ("well well well well", False, '["\\n"]'),  # nothing to see in the text, but no template
        ("\n\n\n\n\n\nwell", None, None),  # that stop would leave nothing of it
        ("3.14159265358979 and more of it", None, None),  # a point within a number ends nothing
        ("First, I add the tens. Then, I add", True, None),  # a chat model still at work
    ],
)
def test_answers_that_do_not_end_get_a_stop_text(text: str, template: bool | None, stop: str | None) -> None:
    """A base model without a chat template: 126 of 128 were cut off, and the advice was more tokens."""
    rows = many(126, 0.0, "length", text=text) + many(2, 0.0)
    tries = why(rows, {"template": template})[1]
    assert ("generate.stop=" in tries) == (stop is not None)
    if stop is not None:
        assert f"try --set 'generate.stop={stop}' in `selfrefine generate`" in tries
        assert parse_set(f"generate.stop={stop}")[1] == [
            one for one in ("\n", ".") if repr(one)[1:-1] in stop
        ]
    # What was set already and did not help is not tried again.
    set_already = why(rows, {"template": template, "given": ("\n", ".")})[1]
    assert "generate.stop" not in set_already
    # Half of them cut off is another matter.
    assert "generate.stop" not in why(rows[:60] + many(60, 0.0), {"template": template})[1]


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
