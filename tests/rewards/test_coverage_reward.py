"""coverage and the word forms below it."""

from __future__ import annotations

from typing import Any

import pytest
from making import made
from msgspec import UNSET

from selfrefine.records import Message, Reward, Sample, Task
from selfrefine.rewards.words import forms


def cover(text: str, concepts: Any = None, *references: str, **settings: Any) -> Reward:
    meta = {} if concepts is None else {"concepts": concepts}
    prompt = (Message(role="user", content="?"),)
    row = Sample(id="s", task=Task(id="t", prompt=prompt, references=references, meta=meta), text=text)
    (reward,) = made("coverage", **settings).score([row])
    return reward


@pytest.mark.parametrize(
    ("concept", "found"),
    [
        ("dog", "dogs"),
        ("run", "running"),
        ("run", "ran"),
        ("running", "ran"),
        ("ran", "runs"),
        ("child", "children"),
        ("knife", "knives"),
        ("carry", "carries"),
        ("carry", "carried"),
        ("watch", "watches"),
        ("bake", "baking"),
        ("stop", "stopped"),
        ("travel", "travelling"),
        ("travel", "traveling"),
        ("tie", "tying"),
        ("quit", "quitting"),
        ("potato", "potatoes"),
        ("picnic", "picnicking"),
        ("glasses", "glass"),
        ("throw", "thrown"),
        ("stopped", "stop"),
        ("tied", "ties"),
    ],
)
def test_a_form_of_the_word_counts(concept: str, found: str) -> None:
    assert found in forms(concept)


@pytest.mark.parametrize(
    ("concept", "other"),
    [
        ("car", "caring"),  # cutting "-ing" off would find car
        ("hop", "hoping"),
        ("plan", "planed"),
        ("see", "seed"),
        ("evening", "even"),
        ("rose", "rise"),
        ("dress", "dres"),
        ("bus", "bu"),
        ("run", "runner"),
        ("cat", "category"),
    ],
)
def test_another_word_does_not(concept: str, other: str) -> None:
    assert other not in forms(concept)


def test_the_share_of_concepts_and_the_missing_ones() -> None:
    reward = cover("The cat sat on the mat.", ["dog", "cat", "run", "sit"])
    assert reward.value == 0.5
    assert reward.detail == "missing concepts: dog, run"
    assert cover("The Dog's bone; it RAN to a cat, sitting.", ["dog", "cat", "run", "sit"]).value == 1.0


def test_a_concept_of_two_words_stands_in_one_piece() -> None:
    assert cover("She ate ice creams.", ["ice cream"]).value == 1.0
    assert cover("Ice and cream.", ["ice cream"]).value == 0.0


def test_nothing_to_cover_is_unscored() -> None:
    assert cover("A cat.", []).error == "meta.concepts is empty"
    assert cover("A cat.", "cat").error == "meta.concepts is not a list of words"


@pytest.mark.parametrize("reference", ["", "42", "A cat sat on the mat.", "#### 7"])
def test_references_are_no_concepts(reference: str) -> None:
    # Taken for a list of concepts, a plain reference made every answer score about 0, without a word.
    reward = cover("It is 8.", None, reference)
    assert reward.value is None
    assert "no meta.concepts" in str(reward.error)


def test_a_concept_without_spaces_around_it_is_found_in_the_sentence() -> None:
    # As words the whole sentence is one, and no concept would ever be used.
    reward = cover("小猫坐在红色的垫子上。", ["猫", "垫子", "狗"])
    assert (reward.value, reward.detail) == (pytest.approx(2 / 3), "missing concepts: 狗")
    assert cover("แมวนั่งบนเสื่อ", ["แมว"]).value == 1.0


def test_word_forms_can_be_off() -> None:
    assert cover("Les chiens.", ["chien"], word_forms=False).value == 0.0
    assert cover("Le chien.", ["chien"], word_forms=False).value == 1.0


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A dog plays in the park.", "A dog"),
        ("A dog plays, and the dog barks.", "A dog"),
        ("In the park a child's dogs play.", "In the park a child's dogs"),
        ("A bird sings.", ""),
        ("", ""),
    ],
)
def test_an_answer_goes_astray_after_the_last_concept_that_it_uses(text: str, kept: str) -> None:
    """A revision from the fault goes on there; using the same one again is no progress."""
    keep = cover(text, ["dog", "ball", "child"]).keep
    assert isinstance(keep, int) and text[:keep] == kept


@pytest.mark.parametrize(
    ("text", "kept"), [("小狗在公园里跑。", "小狗在公园"), ("か\u3099くせいが走る。", "")]
)
def test_the_place_is_one_in_the_text_without_spaces_too(text: str, kept: str) -> None:
    """The trap: composed, the second text is shorter than what a revision would cut."""
    keep = cover(text, ["公园", "球", "がくせい"]).keep
    assert isinstance(keep, int) and text[:keep] == kept


def test_an_answer_with_all_concepts_has_no_fault() -> None:
    assert cover("A dog has a ball.", ["dog", "ball"]).keep is UNSET
