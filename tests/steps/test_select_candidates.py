"""A model too small to criticise can learn to, from the critiques and revisions of its own that worked."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from test_select import row

from selfrefine.config import SelectConfig
from selfrefine.errors import ConfigError
from selfrefine.records import Critique, Message, Sample
from selfrefine.steps.select import Selection, select
from selfrefine.steps.select_nothing import why_nothing

POLICY = "ab" * 32
CRITIQUES = SelectConfig(strategy="all", learn="critiques")


def told(pass_index: int, **fields: Any) -> Critique:
    given: dict[str, Any] = {
        "messages": (Message(role="user", content=f"criticise, pass {pass_index}"),),
        "prompt_token_ids": (7, 7),
        "token_ids": (20 + pass_index, 2),
        "logprobs": (-0.5, -0.1),
        "pass_index": pass_index,
        "critic": f"local:cpu policy:{POLICY[:12]}",
        "text": f"critique {pass_index}",
        "verdict": "revise",
    }
    return Critique(**given | fields)


def thread(task: str, *rewards: float | None, **fields: Any) -> list[Sample]:
    """A draft and its revisions with these rewards; each text but the last has been criticised."""
    rows = []
    for n, reward in enumerate(rewards):
        turn = (Message(role="user", content=f"revise, pass {n}"),) if n else ()
        made = row(task, 0, reward, text=f"text {n}", policy=POLICY, messages=turn)
        critiques = (told(n, **fields),) if n + 1 < len(rewards) else ()
        made = replace(made, critiques=critiques)
        if n:
            made = replace(made, id=f"{task}.r1.s0.v{n}", parent_id=f"{task}.r1.s0", prompt_token_ids=(8, n))
        rows.append(made)
    return rows


def learn(rows: list[Sample], what: Any, **settings: Any) -> Selection:
    return select(rows, SelectConfig(learn=what, **{"strategy": "all", **settings}))


def test_a_revision_turn_is_learnt_under_its_own_prompt_where_the_reward_rose() -> None:
    """Draft 0.2, then 0.6, then 0.6 again, then 0.9: passes 1 and 3 helped, pass 2 did not."""
    found = learn(thread("a", 0.2, 0.6, 0.6, 0.9), "revisions")
    assert [(r.id, r.prompt_token_ids) for r in found.rows] == [
        ("a.r1.s0.v1", (8, 1)),
        ("a.r1.s0.v3", (8, 3)),
    ]
    assert found.rows[0].messages[0].content == "revise, pass 1"
    assert {r.lesson.teaches for r in found.rows} == {"revision"}  # type: ignore[union-attr]
    assert (found.counts["drafts"], found.counts["not_better"]) == (1, 1)


def test_the_critique_that_led_to_it_is_a_row_whose_prompt_is_the_critics() -> None:
    [one, two] = learn(thread("a", 0.2, 0.6, 0.6, 0.9), "critiques").rows
    assert (one.id, one.text, one.token_ids, one.prompt_token_ids) == (
        "a.r1.s0.c0",
        "critique 0",
        (20, 2),
        (7, 7),
    )
    assert (one.messages[0].content, one.logprobs) == ("criticise, pass 0", (-0.5, -0.1))
    assert (one.reward, two.reward) == (0.6, 0.9)  # worth what it led to
    assert (two.id, two.lesson.teaches) == ("a.r1.s0.v2.c2", "critique")  # type: ignore[union-attr]


def test_both_are_capped_and_counted_apart() -> None:
    rows = thread("a", 0.2, 0.6, 0.6, 0.9)
    assert len(learn(rows, "both").rows) == 4
    best = learn(rows, "both", strategy="best-of-n")
    assert [r.id for r in best.rows] == ["a.r1.s0.v3", "a.r1.s0.v2.c2"]
    assert [r.id for r in learn(rows, "revisions", strategy="threshold", min_reward=0.7).rows] == [
        "a.r1.s0.v3"
    ]


@pytest.mark.parametrize("rewards", [(0.5, 0.5), (0.9, 0.1), (None, 0.9), (0.1, None)])
def test_what_did_not_demonstrably_help_is_not_learnt(rewards: tuple[float | None, ...]) -> None:
    assert learn(thread("a", *rewards), "both").rows == []


def test_a_critique_that_saw_the_reference_or_was_cut_off_is_not_learnt() -> None:
    rows = thread("a", 0.0, 1.0, critic="x policy:abab+references")
    seen = learn(rows, "critiques")
    assert seen.rows == [] and seen.counts["references_seen"] == 1
    assert "1 critique by a critic that had seen the references" in why_nothing(rows, CRITIQUES, seen.counts)
    cut = learn(thread("a", 0.0, 1.0, finish_reason="length"), "critiques")
    assert cut.rows == [] and cut.counts["critiques_truncated"] == 1


def test_another_models_critique_is_learnt_by_its_text() -> None:
    """Its ids are of another vocabulary: trained on, they would be noise."""
    [one] = learn(thread("a", 0.0, 1.0, critic="local:cpu policy:cccccccccccc"), "critiques").rows
    assert (one.text, one.token_ids, one.prompt_token_ids, one.logprobs) == ("critique 0", (), (), None)
    assert one.messages[0].content == "criticise, pass 0"


def test_a_revision_without_the_text_it_revised_proves_nothing() -> None:
    rows = thread("a", 0.2, 0.6, 0.9)
    found = learn([rows[0], rows[2]], "revisions")  # somebody's jq took the middle one
    assert found.rows == [] and found.counts["no_draft"] == 1


def test_only_revisions_may_stand_as_answers() -> None:
    """Constitutional: the drafts are what is to be unlearnt."""
    rows = thread("a", 0.9, 0.4)
    [one] = select(rows, SelectConfig(strategy="all", candidates="revisions")).rows
    assert (one.id, one.prompt_token_ids) == ("a.r1.s0.v1", (1, 2))
    found = select(rows[:1], SelectConfig(strategy="all", candidates="revisions"))
    said = why_nothing(rows[:1], SelectConfig(strategy="all", candidates="revisions"), found.counts)
    assert found.counts["drafts"] == 1 and "1 draft criticised but not revised" in said


def test_drafts_without_a_revision_say_what_became_of_their_critiques() -> None:
    """Of five drafts one has no critique, two have one that failed (a prompt too long), one was found good,
    one was only judged. `set critique.passes` is advice for the first alone."""
    plain, *others = (row("a", i, 0.5) for i in range(5))
    failed = told(0, finish_reason="error", error="too long", verdict=None)
    critiques = [failed, failed, told(0, verdict="ok"), told(0)]
    judged = [replace(one, critiques=(seen,)) for one, seen in zip(others, critiques, strict=True)]
    for settings in ({"candidates": "revisions"}, {"learn": "revisions"}, {"learn": "critiques"}):
        config = SelectConfig(strategy="all", **settings)  # type: ignore[arg-type]
        found = select([plain, *judged], config)
        wanted = {
            "drafts": 5,
            "not_criticised": 1,
            "critiques_failed": 2,
            "critiques_ok": 1,
            "not_revised": 1,
        }
        assert found.rows == [] and wanted.items() <= found.counts.items()
        why = why_nothing([plain, *judged], config, found.counts)
        assert "all are drafts, and only revisions or critiques are learnt" in why
        assert "1 draft not criticised" in why and "critique.passes=1" in why
        assert "2 drafts with a failed critique" in why and "1 draft that the critic found good" in why
        assert "1 draft criticised but not revised" in why
        too_long = why_nothing(judged[:2], config, select(judged[:2], config).counts)
        assert "2 drafts with a failed critique" in too_long and "critique.passes" not in too_long
        # A draft that has a revision is none of these, and one that failed itself had nothing to criticise.
        assert not select(thread("a", 0.2, 0.6), config).counts.get("not_criticised")
        failed_rows = [replace(plain, finish_reason="error", error="no room")]
        unanswered = select(failed_rows, config).counts
        assert "1 of 1 answer failed" in why_nothing(failed_rows, config, unanswered)


def test_a_turn_that_failed_is_taught_a_better_draft() -> None:
    """A model whose revisions never help would else have nothing to learn from. Drafts 0.2, 0.9 and, cut off,
    1.0: the first one's turn is taught the second text, the second one's nothing better."""
    first = thread("a", 0.2, 0.1)
    second = [replace(r, id=r.id.replace("s0", "s1"), index=1) for r in thread("a", 0.9, 0.3)]
    second[1] = replace(second[1], parent_id="a.r1.s1", finish_reason="length")
    second[0] = replace(second[0], text="better", token_ids=(4, 2))
    cut = replace(row("a", 2, 1.0, text="best"), finish_reason="length")
    rows = [*first, *second, cut]
    assert learn(rows, "revisions").rows == []
    found = learn(rows, "both", corrections="samples")
    [one] = found.rows
    assert (one.id, one.text, one.token_ids, one.reward) == ("a.r1.s0.v1", "better", (4, 2), 0.9)
    assert (one.messages[0].content, one.prompt_token_ids, one.logprobs) == ("revise, pass 1", (8, 1), None)
    assert found.counts["corrected"] == 1
    with pytest.raises(ConfigError, match="corrections"):
        learn(rows, "critiques", corrections="samples")


def pool(*texts: tuple[str, float]) -> list[Sample]:
    """Drafts of one task; the first was revised, in vain, to `nothing like it`."""
    drafts = [row("a", k, reward, text=text) for k, (text, reward) in enumerate(texts)]
    turn = row("a", 0, 0.1, text="nothing like it", messages=(Message(role="user", content="revise"),))
    turn = replace(turn, id="a.r1.s0.v1", parent_id="a.r1.s0", prompt_token_ids=(8, 1))
    return [replace(drafts[0], critiques=(told(0),)), turn, *drafts[1:]]


def test_the_correction_that_is_taught_is_the_one_nearest_to_the_draft() -> None:
    """The trap: any better answer as the correction (`samples`) teaches to answer again. "a dog runs ." has
    one word in common with the best, "the cat sat on a mat", and all four with "a dog runs fast ."."""
    rows = pool(("a dog runs .", 0.2), ("the cat sat on a mat", 1.0), ("a dog runs fast .", 0.6))
    [turn] = learn(rows, "revisions", corrections="near").rows
    assert (turn.id, turn.text, turn.reward) == ("a.r1.s0.v1", "a dog runs fast .", 0.6)
    assert turn.prompt_token_ids == (8, 1) and turn.logprobs is None  # under the revising prompt
    [far] = learn(rows, "revisions", corrections="samples").rows
    assert far.text == "the cat sat on a mat"
    # 0.6 is not good enough: the nearest of what is
    [good] = learn(rows, "revisions", corrections="near", min_reward=0.9).rows
    assert good.text == "the cat sat on a mat"


def test_a_correction_too_far_from_its_draft_is_not_taught_but_counted() -> None:
    rows = pool(("a dog runs .", 0.2), ("the cat sat on a mat", 1.0))
    found = learn(rows, "revisions", corrections="near", min_similarity=0.5)
    assert found.rows == [] and found.counts["too_far"] == 1
    with pytest.raises(ConfigError, match="min_similarity"):
        learn(rows, "revisions", corrections="samples", min_similarity=0.5)
    nothing_better = pool(("a dog runs .", 0.2), ("a dog", 0.2))
    found = learn(nothing_better, "revisions", corrections="near", min_similarity=0.5)
    assert found.rows == [] and not found.counts.get("too_far")


def test_its_own_better_revision_is_taught_where_it_is_the_nearest() -> None:
    rows = pool(("a dog runs .", 0.05), ("the cat sat on a mat", 1.0))
    rows[1] = replace(rows[1], text="a dog runs away .", logprobs=rows[1].logprobs)
    [turn] = learn(rows, "revisions", corrections="near").rows
    assert turn.text == "a dog runs away ." and turn.logprobs == rows[1].logprobs


def test_one_correction_of_two_drafts_is_two_lessons() -> None:
    """The trap: the best answer to a task corrects each of its drafts, and all but one turn fell out as equal
    (96 of 264 turns of a run). Each stands under its own prompt, which shows its draft."""
    rows = []
    for k, text in enumerate(("a dog .", "dog runs .")):
        first = row("a", k, 0.2, text=text, critiques=(told(0),))
        turn = (Message(role="user", content=f"mend {text}"),)
        made = row("a", k, 1.0, text="a dog runs .", messages=turn)
        rows += [first, replace(made, id=f"{first.id}.v1", parent_id=first.id)]
    found = learn(rows, "revisions")
    assert [one.messages[0].content for one in found.rows] == ["mend a dog .", "mend dog runs ."]  # type: ignore[union-attr,index]
    assert not found.counts.get("duplicates")
