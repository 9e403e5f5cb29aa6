"""Pairs, labels and groups: which answers are set against which, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace
from test_select import group, row

from selfrefine.config import SelectConfig
from selfrefine.errors import ConfigError
from selfrefine.records import Sample
from selfrefine.steps.rationalise import RATIONALISED
from selfrefine.steps.select import Selection, replay, select
from selfrefine.steps.select_nothing import why_nothing


def selected(rows: list[Sample], strategy: Any, **settings: Any) -> Selection:
    return select(rows, SelectConfig(strategy=strategy, **settings))


def sides(found: Selection) -> list[tuple[str, str]]:
    """(chosen, rejected) by the ends of their ids; a pair's two rows stand side by side under one name."""
    both = list(zip(found.rows[::2], found.rows[1::2], strict=True))
    for good, bad in both:
        assert (good.lesson.role, bad.lesson.role) == ("chosen", "rejected")  # type: ignore[union-attr]
        assert good.lesson.pair == bad.lesson.pair is not None  # type: ignore[union-attr]
        assert good.prompt_token_ids == bad.prompt_token_ids
    names = [good.lesson.pair for good, _ in both]  # type: ignore[union-attr]
    assert len(set(names)) == len(names)
    return [(good.id, bad.id) for good, bad in both]


def test_best_against_worst_then_second_against_second_worst() -> None:
    rows = group("a", 0.2, 0.9, 0.5, 0.0, 0.7)
    assert sides(selected(rows, "pairs")) == [("a.r1.s1", "a.r1.s3")]
    found = selected(rows, "pairs", pairs_per_prompt=9)
    assert sides(found) == [("a.r1.s1", "a.r1.s3"), ("a.r1.s4", "a.r1.s0")]
    assert found.counts["unpaired"] == 1  # the one in the middle


def test_ties_are_skipped_and_a_margin_is_not_missed_by_rounding() -> None:
    """A pair of equals teaches noise with the full force of the loss; 0.3 - 0.1 is 0.19999… in binary."""
    assert selected(group("a", 0.5, 0.5), "pairs").rows == []
    assert selected(group("a", 0.5, 0.5), "pairs").counts["prompts_without_spread"] == 1
    close = group("a", 0.3, 0.1)
    assert len(selected(close, "pairs", margin=0.2).rows) == 2
    found = selected(close, "pairs", margin=0.25)
    config = SelectConfig(strategy="pairs", margin=0.25)
    assert found.rows == [] and "margin 0.25 apart" in why_nothing(close, config, found.counts)
    assert found.counts["unpaired"] == 2


def test_an_unparsed_judgement_is_never_the_rejected_side() -> None:
    """Oxen's self-rewarding loop stored it as -1, so that it was the worst of its group."""
    rows = [*group("a", 0.9, None, 0.4), row("a", 3, 0.0, finish_reason="length")]
    found = selected(rows, "pairs")
    assert sides(found) == [("a.r1.s0", "a.r1.s2")]
    assert (found.counts["unscored"], found.counts["truncated"]) == (1, 1)


def test_one_text_is_never_both_sides() -> None:
    """A judge that draws its verdicts scores one text twice, differently."""
    rows = [row("a", 0, 0.9, text="7"), row("a", 1, 0.1, text=" 7")]
    for dedupe in (True, False):
        assert selected(rows, "pairs", dedupe=dedupe).rows == []


def test_the_chosen_side_may_have_to_be_good_and_the_sides_answer_one_prompt() -> None:
    assert selected(group("a", 0.4, 0.1), "pairs", min_reward=0.5).rows == []
    rows = [row("a", 0, 1.0), row("a", 1, 0.0, prompt_token_ids=(8,))]  # a system prompt was changed between
    assert selected(rows, "pairs").rows == []


def test_a_revision_is_set_against_the_draft_under_the_drafts_prompt() -> None:
    draft = row("a", 0, 0.1)
    revision = row("a", 0, 0.8, text="better", prompt_token_ids=(8, 8), logprobs=(-1.0, -1.0, -1.0))
    revision = replace(revision, id="a.r1.s0.v1", parent_id=draft.id)
    [good, bad] = selected([draft, revision], "pairs").rows
    assert (good.id, bad.id, good.prompt_token_ids, good.logprobs) == (revision.id, draft.id, (1, 2), None)


def test_spin_sets_the_reference_against_the_policys_own_answer_whatever_its_reward() -> None:
    """The reference has no ids of this tokenizer: `finetune` encodes its text."""
    rows = [row("a", 0, 0.3, text="forty"), row("a", 1, 0.9, text="42 "), row("b", 0, 0.3)]
    task = replace(rows[0].task, references=("42", "forty-two"))
    rows = [replace(rows[0], task=task), replace(rows[1], task=task), rows[2]]
    found = selected(rows, "pairs", chosen="references")
    [good, bad] = found.rows
    assert (good.id, good.text, good.token_ids, good.reward) == ("a.r0.ref0", "42", (), None)
    assert (good.prompt_token_ids, good.round, bad.id) == (rows[0].prompt_token_ids, 0, "a.r1.s0")
    assert (found.counts["equal_to_reference"], found.counts["no_reference"]) == (1, 1)


def test_labels_need_no_partner() -> None:
    found = selected(group("a", 0.2, 0.5, 0.9) + group("b", 1.0), "labels")
    assert [(r.id[-4:] + r.id[0], r.lesson.role, r.lesson.pair) for r in found.rows] == [  # type: ignore
        ("1.s2a", "chosen", None),
        ("1.s1a", "chosen", None),
        ("1.s0a", "rejected", None),
        ("1.s0b", "chosen", None),
    ]
    capped = selected(group("a", 0.1, 0.2, 0.3, 0.9, 0.8), "labels", max_per_prompt=1, min_reward=0.7)
    assert [r.index for r in capped.rows] == [3, 0]  # the best of the good, the worst of the bad
    assert capped.counts["over_the_cap"] == 3


def test_a_group_is_learnt_whole_the_cut_off_and_the_equal_included() -> None:
    """Dropped, they would shift the baseline: the mean is over what the policy does under this prompt."""
    rows = [
        row("a", 0, 1.0, text="7"),
        row("a", 1, 1.0, text="7"),
        row("a", 2, 0.0, finish_reason="length"),
        row("a", 3, None),
    ]
    revision = replace(row("a", 0, 0.5), id="a.r1.s0.v1", parent_id="a.r1.s0")
    found = selected([*rows, revision, *group("b", 0.5, 0.5)], "groups")
    assert [r.id for r in found.rows] == ["a.r1.s0", "a.r1.s1", "a.r1.s2"]
    assert {r.lesson.role for r in found.rows} == {"learn"}  # type: ignore[union-attr]
    counts = {key: found.counts[key] for key in ("unscored", "revisions", "without_spread")}
    assert counts == {"unscored": 1, "revisions": 1, "without_spread": 2}
    assert found.counts["prompts_without_spread"] == 1
    flat, config = group("b", 0.5, 0.5), SelectConfig(strategy="groups")
    said = why_nothing(flat, config, select(flat, config).counts)
    assert "have the same reward" in said and "min_reward" not in said  # groups have no such threshold


def test_the_band_leaves_out_what_is_mastered_and_what_is_out_of_reach() -> None:
    """Pass rates 0, 1/4, 1/2 and 1 of four samples, against 0.2 to 0.8."""
    rows = (
        group("none", 0.0, 0.0, 0.0, 0.0)
        + group("few", 0.0, 1.0, 0.0, 0.0)
        + group("half", 0.0, 1.0, 1.0, 0.0)
        + group("all", 1.0, 1.0, 1.0, 1.0)
    )
    found = selected(rows, "threshold", band=(0.2, 0.8))
    assert [r.id for r in found.rows] == ["few.r1.s1", "half.r1.s1", "half.r1.s2"]
    assert (found.counts["out_of_band"], found.counts["prompts_out_of_band"]) == (8, 2)
    # A revision that is right does not make the prompt an easy one for the policy.
    revised = replace(row("none", 0, 1.0), id="none.r1.s0.v1", parent_id="none.r1.s0")
    assert [r.id for r in selected([*rows, revised], "all", band=(0.0, 0.1)).rows][-1] == revised.id
    # Nor does an answer that was found with the reference as a hint.
    hinted = replace(row("none", 0, 1.0), id="none.r1.h0", extra={RATIONALISED: Raw(b"true")})
    assert [r.id for r in selected([*rows, hinted], "all", band=(0.0, 0.1)).rows][-1] == hinted.id


def test_replay_takes_pairs_and_groups_whole() -> None:
    """Half a pair has nothing to be compared with; half a group has another mean. 5 tokens a row."""
    current = selected(group("now", 1.0, 0.0), "pairs").rows
    past = selected([r for t in "abcdefgh" for r in group(t, 1.0, 0.0)], "pairs").rows
    taken = replay(current, past, 0.5, seed=3)
    assert len(taken) == 2 and taken[0].lesson.pair == taken[1].lesson.pair  # type: ignore[union-attr]
    groups_ = selected([r for t in "abcdefgh" for r in group(t, 1.0, 0.0, 0.0)], "groups").rows
    taken = replay(group("now", 1.0, 0.0, 0.5, 0.2), groups_, 0.5, seed=3, grouped=True)
    assert len(taken) == 3 and len({r.task.id for r in taken}) == 1


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"strategy": "groups", "max_per_prompt": 2}, "max_per_prompt"),
        ({"strategy": "groups", "min_reward": 0.5}, "min_reward"),
        ({"strategy": "groups", "candidates": "revisions"}, "drafts"),
        ({"strategy": "pairs", "max_per_prompt": 2}, "max_per_prompt"),
        ({"strategy": "all", "margin": 0.1}, "margin"),
        ({"strategy": "labels", "pairs_per_prompt": 2}, "pairs_per_prompt"),
        ({"strategy": "all", "chosen": "references"}, "chosen"),
        ({"strategy": "pairs", "chosen": "references", "margin": 0.1}, "margin"),
        ({"strategy": "pairs", "learn": "revisions"}, "nothing to compare"),
        ({"learn": "critiques", "candidates": "drafts"}, "candidates"),
        ({"band": (0.8, 0.2)}, "band"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        select(group("a", 0.0, 1.0), SelectConfig(**settings))
