"""The GRPO round: the same reward on both sides, and the same amount of learning."""

from __future__ import annotations

import pytest
import tiny

from benchmarks import round as grpo
from benchmarks import work


def test_nearness_grades_what_is_wrong() -> None:
    """A reward of right and wrong leaves most groups of an untrained model without spread."""
    assert grpo.nearness("3 + 4 = 7", "7") == 1.0
    assert grpo.nearness("17", "7") == 0.5
    assert grpo.nearness("-3, no: 37", "7") == 0.25
    assert grpo.nearness("seven", "7") == 0.0
    assert grpo.nearness("9" * 400, "7") == 0.0, "an overlong number is far away, not an error"


def test_both_sides_make_the_same_number_of_steps_from_the_same_number_of_answers() -> None:
    """2 prompts x 8 samples, 8 completions a step: 2 steps, as on our side below."""
    pytest.importorskip("trl")
    engine = tiny.engine()
    tasks = [prompt.task for prompt in work.demo_prompts(engine, 2)]
    theirs = grpo.peer(tiny.model(), engine, tasks, grpo.TINY)
    assert (theirs.steps, theirs.learnt) == (2, 16)
    assert 16 <= theirs.sampled_tokens <= 64


def test_our_round_learns_from_every_group_with_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups without spread are dropped on our side: many of them would flatter us. Here no two lengths of
    answer get the same reward."""
    engine = tiny.engine()
    tasks = [prompt.task for prompt in work.demo_prompts(engine, 2)]
    monkeypatch.setattr(grpo, "nearness", lambda text, reference: len(text) % 7 / 7)
    found = grpo.ours(engine, tasks, grpo.TINY)
    assert (found.steps, found.learnt) == (2, 16)
    assert 16 <= found.sampled_tokens <= 64
