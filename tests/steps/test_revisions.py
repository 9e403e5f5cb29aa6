"""Was revising worth its tokens? On held-out tasks, beside asking again, paired: worked by hand."""

from __future__ import annotations

import pytest
from msgspec import Raw
from test_select import row

from selfrefine.records import Critique, Sample
from selfrefine.stages.revisions import FRESH, RevisionSummary, compared, told
from selfrefine.steps.critique_outcome import Tokens


def thread(task: str, *rewards: float | None, fresh: tuple[float | None, ...] = ()) -> list[Sample]:
    """A draft, its revisions and the fresh samples beside them: 3 tokens each, 2 for each critique."""
    made = []
    for n, reward in enumerate(rewards):
        one = row(task, 0, reward, critiques=(Critique(token_ids=(1, 2)),))
        made.append(one if not n else _named(one, f"{one.id}.v{n}", one.id))
    for k, reward in enumerate(fresh):
        made.append(_named(row(task, 0, reward, extra={FRESH: Raw(b"true")}), f"{task}.r1.s0.f{k}", None))
    return made


def compare(rows: list[Sample]) -> RevisionSummary:
    return told(compared(rows), seed=1)


def _named(one: Sample, id: str, parent: str | None) -> Sample:
    from msgspec.structs import replace

    return replace(one, id=id, parent_id=parent)


def test_each_arm_over_the_tasks_it_is_about() -> None:
    """Four tasks: mended, broken, left alone because the critic was content, revised twice in vain."""
    rows = [
        *thread("mended", 0.0, 1.0, fresh=(1.0, 0.0)),
        *thread("broken", 1.0, 0.0, fresh=(1.0, 1.0)),
        *thread("content", 1.0),
        *thread("vain", 0.0, 1.0, 0.0, fresh=(0.0, None)),
    ]
    found = compare(rows)
    assert (found.draft.mean, found.draft.n) == (0.5, 4)
    assert (found.revision.mean, found.revision.n) == (0.5, 4)  # the last text of each thread
    assert (found.fresh.mean, found.fresh.n) == (0.5, 3)  # 1/2, 1 and 0: an unscored one is no zero
    assert found.revision_minus_draft.mean == 0.0
    difference = found.revision_minus_fresh  # +1/2, -1, 0
    assert difference.mean == pytest.approx(-1 / 6) and difference.n == 3
    assert found.tokens == Tokens(draft=12, critique=16, revision=12, fresh=18)
    assert (found.cost.tokens, found.cost.measured_tokens) == (58, 58)


def test_revising_must_beat_the_better_of_two_ways_to_ask_again() -> None:
    """As drafts are drawn: 0 and 1, mean 0.5. As revisions are drawn, cooler: 1 and 1. The revisions got
    1 and 1: +0.5 against the one, nothing against the other."""
    rows = [*thread("a", 0.0, 1.0, fresh=(0.0,)), *thread("b", 0.0, 1.0, fresh=(1.0,))]
    for task in ("a", "b"):
        cool = row(task, 0, 1.0, extra={FRESH: Raw(b'"revisions"')})
        rows.append(_named(cool, f"{task}.r1.s0.g0", None))
    found = compare(rows)
    assert found.fresh_as == "revisions"
    assert {arm: own.mean for arm, own in found.arms.items()} == {"drafts": 0.5, "revisions": 1.0}
    assert (found.fresh.mean, found.revision_minus_fresh.mean) == (1.0, 0.0)


def test_a_critic_that_is_always_content_leaves_nothing_to_compare() -> None:
    found = compare(thread("a", 1.0) + thread("b", 0.0))
    assert (found.draft.mean, found.revision.mean) == (0.5, 0.5)
    assert found.fresh.mean is None and found.revision_minus_fresh.mean is None
