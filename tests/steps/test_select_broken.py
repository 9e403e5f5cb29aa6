"""A right answer that is broken on purpose has a known correction, and a near one: the answer itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace
from test_select import row

from selfrefine import prompts
from selfrefine.config import SelectConfig
from selfrefine.errors import ConfigError
from selfrefine.records import Message, Reward, Sample
from selfrefine.steps.critics import own_rewards, told
from selfrefine.steps.select import select
from selfrefine.steps.select_broken import BROKEN, Breaker
from selfrefine.steps.similarity import similarity

SETTINGS = SelectConfig(strategy="all", learn="revisions", corrections="broken")
WANTED = ("dog", "ball", "park")


def covering(rows: Sequence[Sample]) -> list[Sample]:
    """The share of three words that an answer has, and those it lacks."""
    scored = []
    for one in rows:
        missing = [word for word in WANTED if word not in one.text.casefold()]
        value = 1 - len(missing) / 3
        detail = f"missing: {', '.join(missing)}" if missing else None
        found = (Reward(name="words", value=value, detail=detail, signature="v:1"),)
        scored.append(replace(one, rewards=found, reward=value))
    return scored


def right_where(check: Callable[[str], bool], fault: str) -> Callable[[Sequence[Sample]], list[Sample]]:
    """1 for a text that passes the check, else 0 and the fault."""

    def score(rows: Sequence[Sample]) -> list[Sample]:
        scored = []
        for one in rows:
            value = float(check(one.text))
            found = (Reward(name="own", value=value, detail=None if value else fault, signature="v:1"),)
            scored.append(replace(one, rewards=found, reward=value))
        return scored

    return score


def broken_by(score: Callable[[list[Sample]], list[Sample]], text: str, seeds: int) -> set[str]:
    """The broken copies of a right text, over some seeds."""
    [right] = score([row("a", 0, None, text=text)])
    drafts = set()
    for seed in range(seeds):
        own = Breaker(score, told(own_rewards, "rewards"), prompts.load("mend", "revise"), seed)
        drafts |= {draft.text for draft, _ in own([(right, right)])}
    return drafts


def breaker(mark: float = 1.0, seed: int = 0) -> Breaker:
    return Breaker(covering, told(own_rewards, "rewards", mark), prompts.load("mend", "revise"), seed, mark)


RIGHT = "The old dog carries a red ball through the park."


def answers(*texts: str) -> list[Sample]:
    return covering([row("a", k, None, text=text) for k, text in enumerate(texts)])


def test_a_right_answer_is_what_its_broken_copies_are_mended_to() -> None:
    """What is learnt: the answer as it was. What is shown: a copy of it that lacks words, and which."""
    found = select(answers(RIGHT, "A cat sleeps."), SETTINGS, breaker())
    assert found.counts["broken"] == len(found.rows) == BROKEN
    for turn in found.rows:
        asked = turn.context[-1].content
        assert turn.text == RIGHT and turn.reward == 1.0 and turn.logprobs is None
        assert turn.lesson.teaches == "revision" and turn.parent_id is not None
        assert "question a" in asked and f"A draft: {RIGHT}" not in asked
        assert "What is wrong with it: missing: " in asked


def test_broken_copies_are_near_and_worse_and_keep_how_a_draft_begins_and_ends() -> None:
    """The trap: a copy without its final stop is told from a real draft by that alone."""
    made = [pair for seed in range(20) for pair in breaker(seed=seed)([(one, one) for one in answers(RIGHT)])]
    assert len(made) > 20
    for draft, turn in made:
        assert draft.reward is not None and draft.reward < 1.0
        assert draft.text[0].isupper() and draft.text.endswith(".") and not draft.text.endswith("..")
        # Ten words and a stop; three of them are taken out at most: 2·8 of 8 + 11.
        assert similarity(draft.text, turn.text) >= 16 / 19 - 1e-9
    assert len({draft.text for draft, _ in made}) > 5


def test_two_numbers_that_changed_places_are_a_fault_where_the_order_counts() -> None:
    def ordered(text: str) -> bool:
        numbers = [int(n) for n in text.strip("[]").split(", ") if n]
        return numbers == sorted(numbers) and len(numbers) == 4

    drafts = broken_by(right_where(ordered, "not sorted, or not all"), "[-3, 5, 8, 11]", 10)
    swapped = {text for text in drafts if sorted(text.strip("[]").split(", ")) == ["-3", "11", "5", "8"]}
    assert swapped and "[-3, 5, 8, 11]" not in swapped


def test_a_number_that_is_a_little_off_is_a_fault_where_values_count() -> None:
    """7 + 5 = 12 is written down with another result, 1, 2 or 10 off; x1 and 2.5 are no whole numbers."""
    drafts = broken_by(right_where(lambda text: "7 + 5 = 12" in text, "wrong"), "7 + 5 = 12 (x1, 2.5)", 10)
    off = {text for text in drafts if text.startswith("7 + 5 = ") and text.endswith(" (x1, 2.5)")}
    assert off and off <= {f"7 + 5 = {n} (x1, 2.5)" for n in (2, 10, 11, 13, 14, 22)}


def test_the_same_seed_breaks_the_same_way_and_an_equal_answer_is_broken_once() -> None:
    rows = [(one, one) for one in answers(RIGHT, RIGHT)]
    first, again = breaker()(rows), breaker()(rows)
    assert first == again and len(first) == BROKEN
    assert [draft.text for draft, _ in first] != [draft.text for draft, _ in breaker(seed=1)(rows)]


def test_a_right_revision_is_broken_as_an_answer_to_the_task() -> None:
    """The trap: its own chat shows the draft it came from, and the lesson would ask for a revision of a
    revision."""
    [draft, good] = answers("A dog.", RIGHT)
    shown = (Message(role="user", content="question a. A draft: A dog."),)
    good = replace(good, id="a.r1.s0.v1", index=0, parent_id=draft.id, messages=shown)
    found = select([draft, good], replace(SETTINGS, min_similarity=0.5), breaker()).rows
    assert len(found) == BROKEN
    assert all("A draft: A dog." not in turn.context[-1].content for turn in found)


def test_what_cannot_be_broken_makes_no_lesson() -> None:
    """One word has no half to keep; an answer that was cut off teaches never to stop; 0.5 is not right."""
    assert breaker(mark=0.0)([(one, one) for one in answers("dog")]) == []
    [cut] = answers(RIGHT)
    cut = replace(cut, finish_reason="length")
    found = select([cut, *answers("A dog.")], SETTINGS, breaker())
    assert found.rows == [] and not found.counts.get("broken")


def test_a_text_without_spaces_is_cut_by_its_characters() -> None:
    drafts = broken_by(right_where(lambda text: "猫" in text, "no cat"), "公園に猫がいます。", 5)
    assert drafts and all(5 <= len(text) < 9 and text.endswith("。") for text in drafts)


def test_a_revision_without_its_draft_is_not_broken_and_what_is_too_far_is_counted() -> None:
    """The trap: its own chat asks for a revision, and would be shown as the task."""
    [good] = answers(RIGHT)
    shown = (Message(role="user", content="question a. A draft: A dog."),)
    orphan = replace(good, id="a.r1.s0.v1", parent_id="a.r1.s0", messages=shown)
    assert not select([orphan], SETTINGS, breaker()).counts.get("broken")
    far = select([good], replace(SETTINGS, min_similarity=1.0), breaker())
    assert far.rows == [] and far.counts["too_far"] == BROKEN


def test_breaking_needs_rewards() -> None:
    with pytest.raises(ConfigError, match=r"select\.corrections broken: name the rewards"):
        select(answers(RIGHT), SETTINGS)
