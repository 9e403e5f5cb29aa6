"""Why an answer failed: one kind each, and nothing claimed that cannot be told."""

from __future__ import annotations

import pytest

from selfrefine.records import Reward, Sample
from selfrefine.reflection.failures import kind_of, other_language
from tests.reflection.planted import answer, task

SUM = task("a", "What is 3 + 4?", "7")
LOOP = "the answer is seven and " * 12


@pytest.mark.parametrize(
    ("text", "more", "kind"),
    [
        ("The answer is 8.", {}, "wrong"),
        (" \n", {}, "empty"),
        ("First we take 3 and then", {"finish_reason": "length"}, "cut off"),
        (LOOP, {}, "repetitive"),
        # More room would not have ended it: longer answers would be the wrong remedy.
        (LOOP, {"finish_reason": "length"}, "repetitive"),
        ("1 + 1 + 1 + 1", {}, "wrong"),  # too short to be a loop
        ("Ответ на этот вопрос восемь", {}, "other language"),
        ("I'm sorry, but I can't help with that.", {}, "refused"),
        ("As an AI language model, I do not add.", {}, "refused"),
        ("Ich kann dir dabei leider nicht helfen.", {}, "refused"),
        ("我无法回答这个问题", {}, "refused"),
        ("I can't help but notice that 3 + 4 = 8.", {}, "wrong"),
        ("I cannot see 7 in it: 8", {}, "wrong"),
    ],
)
def test_each_way_to_fail_has_its_kind(text: str, more: dict[str, object], kind: str) -> None:
    assert kind_of(answer(SUM, 0.0, text, **more)) == kind


def test_what_is_right_did_not_fail_however_it_looks() -> None:
    # Trap: an answer that was cut off after the right number is no failure.
    assert kind_of(answer(SUM, 1.0, LOOP, finish_reason="length")) is None


def test_a_score_that_could_not_be_computed_is_a_failure_and_a_missing_one_is_not() -> None:
    assert kind_of(answer(SUM, None, "7 or 8")) == "unreadable"
    assert kind_of(answer(SUM, None, "")) == "empty"  # why it could not be read
    assert kind_of(Sample(id="x", task=SUM, text="7")) is None  # nobody has scored it
    assert kind_of(Sample(id="x", task=SUM, finish_reason="error", error="too long")) == "unreadable"


def test_a_graded_answer_fails_below_what_the_run_asks_for() -> None:
    # Three tenths summed in floats are a little less than 0.3 * 3 in another order: still a pass.
    row = answer(SUM, 0.1 + 0.1 + 0.1 + 0.6 - 0.6, "about 7")
    assert kind_of(row, passing=0.3) is None
    assert kind_of(row, passing=0.31) == "wrong"
    assert kind_of(row) == "wrong"  # without min_reward only the full reward is right


def test_two_rewards_on_opposite_sides_disagree() -> None:
    def scored(*values: float) -> Sample:
        rewards = tuple(Reward(name=f"r{i}", value=value) for i, value in enumerate(values))
        return answer(SUM, sum(values) / len(values), "8", rewards=rewards)

    assert kind_of(scored(0.0, 1.0)) == "rewards disagree"
    assert kind_of(scored(0.5, 1.0)) == "wrong"  # the middle is on neither side
    assert kind_of(scored(0.6, 0.9)) == "wrong"


GERMAN = "Das ist nicht die Antwort auf eine Frage, und der Mann mit dem Hut ist nicht von hier."
ENGLISH = "This is not the answer to that question, and the man with the hat is not from here."


@pytest.mark.parametrize(
    ("text", "prompt", "reference", "other"),
    [
        (GERMAN, "Who is the man with the hat, and where is he from?", "", True),
        (GERMAN, "Who is this?", "", False),  # too short to tell what is wanted
        (ENGLISH, "Translate into German: " + ENGLISH, GERMAN, True),
        (GERMAN, "Translate into German: " + ENGLISH, GERMAN, False),  # the prompt's language is not wanted
        (GERMAN, "Translate into German: " + ENGLISH, "", False),  # nor is it known without a reference
        ("Привет, мир и все люди", "Say hello to the world.", "Hello, world", True),
        ("Hello мир", "Say hello to the world.", "Hello, world", False),  # mixed
        ("x = 3", "Что такое икс?", "3", False),  # one letter is no language
        ("東京です", "Where?", "東京だよ", False),
    ],
)
def test_another_language_is_claimed_only_where_it_is_sure(
    text: str, prompt: str, reference: str, other: bool
) -> None:
    assert other_language(text, task("a", prompt, reference)) is other
