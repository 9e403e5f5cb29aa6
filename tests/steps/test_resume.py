"""A revision that keeps what stands before the fault: what is kept, what is asked, what it costs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET
from msgspec.structs import replace
from test_critique import TEMPLATES, draft

from selfrefine.config import Sampling
from selfrefine.engines.scripted import ASSISTANT, Scripted
from selfrefine.records import Reward, Sample
from selfrefine.steps.critics import first_fault, own_rewards
from selfrefine.steps.critique import CritiqueResult, CritiqueSettings, critique
from selfrefine.steps.resume import KEPT, kept_ids, n_sampled, resume

DRAFT = "1 + 2 = 3; 3 + 3 = 7"
RIGHT = "1 + 2 = 3; 3 + 3 = 6"
FAULT = DRAFT.index("7")
SETTINGS = CritiqueSettings(resume=True, control=False)


class Calculator(Scripted):
    """Ends the sum it has begun; what it is asked afresh it answers with "0"."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[str] = []

    def _answers(self, prompt: Sequence[int]) -> list[tuple[int, ...]]:
        ids = list(prompt)
        begun = self.decode(ids[len(ids) - ids[::-1].index(ASSISTANT) :])
        self.began.append(begun)
        return [self.encode_answer("6" if begun.endswith("3 + 3 = ") else "0")]


def placed(rows: list[Sample]) -> list[Sample]:
    """Right is RIGHT; of what begins like it the fault has a place, of anything else it has none."""
    scored = []
    for row in rows:
        right = row.text == RIGHT
        keep = FAULT if row.text.startswith(DRAFT[:FAULT]) and not right else UNSET
        found = Reward(name="sum", value=float(right), detail=None if right else "wrong", keep=keep)
        scored.append(replace(row, rewards=(found,), reward=float(right)))
    return scored


def revised(engine: Scripted, *rows: Sample) -> CritiqueResult:
    return critique(rows, engine, engine, TEMPLATES, SETTINGS, 11, placed, own_rewards)


def test_what_is_right_is_kept_and_only_the_rest_is_sampled_and_paid() -> None:
    """ "1 + 2 = 3; 3 + 3 = " has 19 bytes, a token each; "6" and the end of turn are new."""
    engine = Calculator()
    result = revised(engine, draft(DRAFT))
    first, revision = result.rows
    assert engine.began == [DRAFT[:FAULT]]
    assert revision.text == RIGHT and revision.reward == 1.0
    assert revision.token_ids == engine.encode_answer(RIGHT)
    # A whole answer to the task: under its own prompt, and no logprobs of its end alone.
    assert revision.context == first.context and revision.logprobs is None
    assert revision.prompt_token_ids == engine.encode_chat(first.context)
    assert isinstance(revision.extra, dict) and msgspec.json.decode(revision.extra[KEPT]) == 19
    assert (len(revision.token_ids), n_sampled(revision), n_sampled(first)) == (21, 2, len(first.token_ids))
    assert result.outcome.revision_tokens == 2
    assert result.outcome.near.resumed == 1


def test_a_second_pass_goes_on_from_what_the_first_mended() -> None:
    """The first pass mends step 1 and spoils step 2, the second mends that: each samples its own end only."""

    class Slow(Calculator):
        def _answers(self, prompt: Sequence[int]) -> list[tuple[int, ...]]:
            [answer] = super()._answers(prompt)
            wrong = self.encode_answer("3; 3 + 3 = 7")
            return [wrong if self.began[-1].endswith("1 + 2 = ") else answer]

    def placing(rows: list[Sample]) -> list[Sample]:
        return (
            placed(rows)
            if rows[0].text != "1 + 2 = 5"
            else [
                replace(row, reward=0.0, rewards=(Reward(name="sum", value=0.0, detail="wrong", keep=8),))
                for row in rows
            ]
        )

    engine = Slow()
    settings = replace(SETTINGS, passes=3)
    result = critique([draft("1 + 2 = 5")], engine, engine, TEMPLATES, settings, 11, placing, own_rewards)
    assert [row.text for row in result.rows] == ["1 + 2 = 5", DRAFT, RIGHT]
    assert engine.began == ["1 + 2 = ", DRAFT[:FAULT]]
    assert result.outcome.revision_tokens == len("3; 3 + 3 = 7") + 1 + 2
    # Right after two of three passes: nothing is paid for the third.
    assert [one.revisions for one in result.outcome.passes] == [1, 1, 0]


def test_a_fault_without_a_place_is_revised_as_ever() -> None:
    engine = Calculator()
    _, revision = revised(engine, draft("nonsense")).rows
    assert engine.began == [""] and revision.text == "0"
    assert "nonsense" in revision.context[-1].content and revision.extra is UNSET


def test_edited_texts_and_those_of_other_tokenizers_are_revised_as_ever() -> None:
    """The trap: their ids say something else, and would be continued although nobody sees them in the row."""
    engine = Calculator()
    edited = replace(draft(DRAFT), token_ids=(*b"something else", 256))
    _, revision = revised(engine, edited).rows
    assert engine.began == [""] and revision.text == "0"
    assert n_sampled(revision) == len(revision.token_ids) == 2
    assert DRAFT in revision.context[-1].content and revision.extra is UNSET


def test_what_would_not_fit_into_the_context_is_written_anew() -> None:
    """The engine asks for room for max_new_tokens: the draft had it, and with what is kept there is none."""
    row = draft(DRAFT)
    need = len(Scripted().encode_chat(row.context)) + FAULT + 16
    for room, fits in ((need, True), (need - 1, False)):
        engine = Scripted(context_tokens=room)
        found = resume(row, row, FAULT, engine)
        assert found is not None and found.fits(engine, Sampling(max_new_tokens=16)) == fits


def test_a_token_that_reaches_into_the_fault_is_not_kept_nor_half_a_character_nor_the_end() -> None:
    engine = Scripted()
    row = replace(draft("é7"), token_ids=(*"é7".encode(), 256))
    # é is two bytes: with one character to keep, both; with none, not its first byte alone.
    assert kept_ids(row, 1, engine) == tuple("é".encode())
    assert kept_ids(row, 0, engine) == ()
    # The whole text, and not the end of turn behind it.
    assert kept_ids(row, 2, engine) == tuple("é7".encode())

    class Pairs(Scripted):
        """Two characters a token."""

        def decode(self, token_ids: Sequence[int]) -> str:
            return "".join({1: "ab", 2: "cd", 3: "ef"}[i] for i in token_ids)

    assert kept_ids(replace(draft("abcdef"), token_ids=(1, 2, 3)), 3, Pairs()) == (1,)


def test_of_several_faults_the_first_counts() -> None:
    assert first_fault([UNSET, 7, 3]) == 3
    assert first_fault([UNSET]) is UNSET
