"""What a plan aimed at against what was measured, and what counts as right on both sides."""

from __future__ import annotations

from msgspec.structs import replace
from plans import CONFIG, NOTHING, TARGET, answers, weak

from selfrefine.config import (
    SelectConfig,
)
from selfrefine.reflection import facts
from selfrefine.reflection.findings import Action, Plan, Target
from selfrefine.reflection.plan import judged, sentence


def test_planned_against_measured() -> None:
    """By hand: subtractions 1/2 of 2 tasks; never right 1 of 2 tasks; the gate 1/2."""
    gate = Target(figure="gate.mean", split="gate", direction="up", before=0.5)
    minus = Target(figure='word "-"', split="gate", direction="up", before=0.3)
    gone = Target(figure="digits >= 9", split="gate", direction="up", before=0.3)
    first = Target(figure="never right", split="train", direction="down", before=None)
    actions = tuple(
        Action(kind=kind, reason="", target=target)  # type: ignore[arg-type]
        for kind, target in (
            ("hint", gate),
            ("reweight", minus),
            ("few-shot", gone),
            ("sample-more", TARGET),
            ("rationalise", first),
            ("stop", gate),
        )
    )
    own = Plan(round=2, mode="auto", actions=actions)
    held, drawn = answers({"1": [1.0], "2": [0.0]}), answers({"3": [0.0, 1.0], "4": [0.0, None]})
    told = {one.kind: one for one in judged(own, weak(0.3, 0.9), held, drawn, 1.0)}
    assert (told["hint"].after, told["hint"].moved) == (0.5, False)  # equal is not better
    assert (told["reweight"].after, told["reweight"].moved) == (0.5, True)
    assert (told["few-shot"].after, told["few-shot"].moved) == (None, None)
    assert (told["sample-more"].after, told["sample-more"].moved) == (0.5, True)
    assert told["rationalise"].moved is None and "not known before" in told["rationalise"].why
    assert "stop" not in told
    assert judged(replace(own, mode="suggest"), weak(0.3, 0.9), held, drawn, 1.0) == []
    assert sentence(told["sample-more"]) == "round 2 sample-more: never right (train) 0.800 → 0.500, moved"
    assert "the round has no gate answers" in sentence(judged(own, NOTHING, [], drawn, 1.0)[0])


def test_what_is_cut_off_is_counted_after_as_before() -> None:
    """An answer in a loop that ran into the limit is of the kind repetitive, and was cut off all the same."""
    loop = "so " * 40
    rows = [
        replace(row, text=loop, finish_reason="length") if row.index else row
        for row in answers({"1": [0.0, 0.0]})
    ]
    target = Target(figure="cut off", split="train", direction="down", before=facts.truncated(rows))
    own = Plan(round=2, mode="auto", actions=(Action(kind="temperature", reason="", target=target),))
    (told,) = judged(own, NOTHING, [], rows, 1.0)
    assert (told.target.before, told.after, told.moved) == (0.5, 0.5, False)


def test_rewards_between_zero_and_one_have_no_right_answer_unless_one_is_said() -> None:
    """With BLEU nothing is ever 1: it called for more samples in every round."""
    graded = answers({"1": [0.4, 0.7]})
    assert not facts.has_mark(graded, CONFIG)
    assert facts.has_mark(graded, replace(CONFIG, select=SelectConfig(min_reward=0.6)))
    assert facts.has_mark(answers({"1": [0.0, 1.0, None]}), CONFIG)


def test_a_reward_that_misses_the_mark_by_rounding_is_right() -> None:
    """0.7 + 0.2 + 0.1 is 0.9999999999999999: `weaknesses.json` said right, and the plan never right."""
    rows = answers({"1": [0.7 + 0.2 + 0.1]})
    assert rows[0].reward is not None and rows[0].reward < 1
    assert facts.never_ids(rows, 1.0) == frozenset()
    assert facts.own_examples(rows, 1.0) != ()


def test_examples_are_own_right_answers_of_tasks_that_are_often_wrong() -> None:
    rows = answers({"easy": [1.0, 1.0], "hard": [0.0, 1.0], "never": [0.0, 0.0]})
    assert facts.own_examples(rows, 1.0) == (("hard - 1", "8"), ("easy - 1", "8"))
    cut = [replace(row, finish_reason="length") for row in rows]
    assert facts.own_examples(cut, 1.0) == ()
