"""A model learns to judge its own answers from answers whose reward is known."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import tiny
from msgspec import Raw
from msgspec.structs import replace
from test_select import group, row

from selfrefine.config import Config, CycleConfig, GenerateConfig, SelectConfig
from selfrefine.engines.local import LocalEngine
from selfrefine.errors import ConfigError
from selfrefine.objectives.fit import check_rows
from selfrefine.records import Message, Sample
from selfrefine.rewards import p_true
from selfrefine.rewards.base import RewardOptions
from selfrefine.stages.settings import check_method
from selfrefine.steps.select import Selection, select
from selfrefine.steps.select_nothing import why_nothing
from selfrefine.steps.training_items import items

JUDGE = SelectConfig(strategy="all", learn="verdicts")


def learn(rows: list[Sample], **settings: Any) -> Selection:
    found = select(rows, replace(JUDGE, **settings))
    fates = (
        "errors",
        "truncated",
        "unscored",
        "duplicates",
        "over_the_cap",
        "hinted",
        "unbalanced",
        "drafts",
    )
    assert sum(found.counts.get(fate, 0) for fate in (*fates, "selected")) == len(rows)
    return found


def said(found: Selection) -> dict[str, str]:
    return {one.id.removesuffix(".q").replace(".r1.s", ""): one.text for one in found.rows}


def test_a_row_asks_what_p_true_asks_and_says_whether_the_reward_reached_the_mark() -> None:
    [yes, no] = learn(group("a", 1.0, 0.75)).rows
    assert (yes.id, yes.parent_id, yes.text, no.text) == ("a.r1.s0.q", "a.r1.s0", "Yes", "No")
    assert yes.messages == (
        Message(role="user", content="question a"),
        Message(role="assistant", content="answer 0"),
        Message(role="user", content=p_true.QUESTION),
    )
    assert yes.lesson.teaches == "verdict"  # type: ignore[union-attr]
    assert (yes.reward, no.reward) == (1.0, 1.0)  # a right verdict on a wrong answer is right
    # A graded reward below the mark is a No, whatever it is.
    assert said(learn(group("a", 1.0, 0.75, 0.5), min_reward=0.75)) == {"a0": "Yes", "a2": "No"}


@pytest.mark.parametrize("scheme", ["bytes", "first"])
def test_the_token_taught_is_the_token_that_p_true_scores(scheme: str) -> None:
    """Were it " Yes", or the prompt another, training would not move p(Yes), and nothing would say so."""
    engine = tiny.engine()
    if scheme != "bytes":
        tokenizer = tiny.sentencepiece(scheme)
        engine = LocalEngine(tiny.model(vocabulary=len(tokenizer)), tokenizer, engine.identity)
    asked: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    class Listening:
        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

        def score(self, prompts: Any, completions: Any) -> Any:
            asked.extend(zip(prompts, completions, strict=True))
            return engine.score(prompts, completions)

    answers = group("a", 1.0, 0.0)
    p_true.make(None, RewardOptions(engine=Listening())).score(answers)  # type: ignore[arg-type]
    taught, edited, foreign = items(learn(answers).rows, engine)
    learnt = [(one.prompt_token_ids, one.completion_token_ids[:1]) for one in taught]
    assert learnt == [asked[0], asked[3]]  # Yes of the first answer, No of the second
    assert (edited, foreign) == (0, 0)


def test_both_words_are_as_frequent_within_a_prompt_and_over_the_others() -> None:
    """a: 1 of 3, b: 3 of 4, c and d never, e always. A policy that says No would be right in 8 of 14."""
    rows = [
        *group("a", 0.0, 1.0, 0.0),
        *group("b", 1.0, 1.0, 0.0, 1.0),
        *group("c", 0.0, 0.0),
        *group("d", 0.0, 0.0),
        *group("e", 1.0, 1.0, 1.0),
    ]
    found = learn(rows)
    assert said(found) == {
        "a0": "No",
        "a1": "Yes",
        "b0": "Yes",
        "b2": "No",
        # Of those answered one way: three right ones of e, and of c and d in turn as many.
        "c0": "No",
        "c1": "No",
        "d0": "No",
        "e0": "Yes",
        "e1": "Yes",
        "e2": "Yes",
    }
    assert Counter(said(found).values()) == {"Yes": 5, "No": 5}
    assert (found.counts["unbalanced"], found.counts["prompts_selected"]) == (4, 5)
    # The cap is one of each kind: e then gives one, and so do c or d.
    capped = learn(rows, max_per_prompt=1)
    assert said(capped) == {"a0": "No", "a1": "Yes", "b0": "Yes", "b2": "No", "c0": "No", "e0": "Yes"}


def test_what_has_no_reward_teaches_nothing_and_is_counted() -> None:
    hinted = replace(row("a", 6, 1.0), extra={"rationalised": Raw(b"true")})
    rows = [
        *group("a", 1.0, None, 0.0),
        row("a", 3, 0.0, finish_reason="length"),
        row("a", 4, None, finish_reason="error", error="too long"),
        row("a", 5, 0.0, text=" answer 2 "),  # a2 again: the same question and the same word
        hinted,
    ]
    found = learn(rows)
    assert said(found) == {"a0": "Yes", "a2": "No"}
    names = ("unscored", "truncated", "errors", "duplicates", "hinted", "unbalanced")
    assert [found.counts[name] for name in names] == [1, 1, 1, 1, 1, 0]


def test_revisions_are_judged_like_drafts_or_left_out() -> None:
    revised = replace(row("a", 0, 1.0, text="better"), id="a.r1.s0.v1", parent_id="a.r1.s0")
    rows = [*group("a", 0.0), revised]
    assert said(learn(rows)) == {"a0": "No", "a0.v1": "Yes"}
    left = select(rows, replace(JUDGE, candidates="drafts"))
    assert (left.rows, left.counts["revisions"], left.counts["unbalanced"]) == ([], 1, 1)


def test_where_all_answers_are_wrong_there_is_nothing_to_learn_and_it_says_why() -> None:
    rows = group("a", 0.0, 0.0)
    found = select(rows, JUDGE)
    assert found.rows == []
    said_why = why_nothing(rows, JUDGE, found.counts)
    assert "2 answers without one of the other kind" in said_why and "easier or harder tasks" in said_why


def test_settings_that_would_unbalance_it_are_refused() -> None:
    for strategy in ("best-of-n", "threshold", "pairs", "labels", "groups"):
        with pytest.raises(ConfigError, match=r"select\.strategy=all"):
            select([], replace(JUDGE, strategy=strategy))
    check_rows("sft", JUDGE)
    with pytest.raises(ConfigError, match=r"objective\.name=sft"):
        check_rows("weighted-sft", JUDGE)


def test_a_run_needs_no_critique_for_it() -> None:
    check_method(Config(select=JUDGE, cycle=CycleConfig(rounds=1), generate=GenerateConfig(n=4)))
