"""A critic learns from rewards what to look for, and is judged by what it then says without them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from test_critique import POLICY, TEMPLATES, draft

from selfrefine.config import Config, EvaluateConfig, SelectConfig
from selfrefine.errors import ConfigError
from selfrefine.judging import CritiqueConfig
from selfrefine.records import Critique, Reward, Sample
from selfrefine.rewards.base import WITHHELD
from selfrefine.stages.settings import check_method
from selfrefine.steps.critics import own_rewards
from selfrefine.steps.critique import CritiqueSettings, critique
from selfrefine.steps.critique_outcome import Claims, calibrated, claims_made, judged
from selfrefine.steps.scoring import check_named
from selfrefine.steps.select import select
from selfrefine.steps.select_details import claims
from selfrefine.steps.select_nothing import why_nothing


def told(*rewards: Reward, index: int = 0, text: str = "8") -> list[Sample]:
    row = replace(draft(text, index), rewards=rewards, reward=min(one.value or 0.0 for one in rewards))
    settings = CritiqueSettings(control=False)
    return critique([row], POLICY, POLICY, TEMPLATES, settings, 11, tell=own_rewards).rows


MISSING = Reward(name="coverage", value=0.5, detail="missing concepts: dog, run")
FINE = Reward(name="coverage", value=1.0)
DETAILS = SelectConfig(strategy="all", learn="details")


def test_what_rewards_found_is_taught_under_the_critics_prompt_and_what_was_right_too() -> None:
    rows = [*told(MISSING), *told(FINE, index=1), *told(FINE, index=2)]
    found = select(rows, DETAILS)
    assert [(row.id, row.text) for row in found.rows] == [
        ("t.r2.s0.c0", "missing concepts: dog, run\nVerdict: revise"),
        ("t.r2.s1.c0", "Verdict: ok"),
        ("t.r2.s2.c0", "Verdict: ok"),  # an equal text under another prompt is no duplicate
    ]
    shown = TEMPLATES.critique.render(task="What is 3 + 4?", answer="8")
    assert isinstance(found.rows[0].messages, tuple) and found.rows[0].messages[0].content == shown
    assert found.rows[0].token_ids == () and found.rows[0].logprobs is None  # nobody sampled it
    assert all(row.lesson and row.lesson.teaches == "critique" for row in found.rows)  # type: ignore[union-attr]


def test_what_was_withheld_is_not_taught() -> None:
    """A linter that quotes the reference would teach the critic to say "(withheld: ...)" of every draft."""
    found = select(told(Reward(name="lint", value=0.0, detail=WITHHELD)), DETAILS)
    assert found.rows == [] and found.counts["not_told"] == 2  # the revision has no critique


def test_both_means_details_and_revising_turns_where_rewards_criticise() -> None:
    draft_row, revision = told(MISSING)
    rows = [draft_row, replace(revision, reward=1.0)]
    taught = [row.lesson.teaches for row in select(rows, SelectConfig(strategy="all", learn="both")).rows]  # type: ignore[union-attr]
    assert taught == ["revision", "critique"]


def test_a_critique_that_a_model_wrote_is_no_detail() -> None:
    row = replace(draft("8"), reward=0.0, critiques=(Critique(text="bad", critic="local policy:ab"),))
    found = select([row], DETAILS)
    assert found.rows == [] and found.counts["not_told"] == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("missing concepts: dog, run", {"dog", "run"}),
        ("- coverage: Dog , RUN.\nVerdict: revise", {"dog", "run"}),
        ("no full stop at the end\nScore: 1\nVerdict: ok", {"no full stop at the end"}),
        ("Verdict: ok", set()),
        ("", set()),
    ],
)
def test_claims_are_what_stands_after_the_label(text: str, expected: set[str]) -> None:
    assert claims(text) == expected


def test_claims_against_what_is_true_and_chances_against_what_is_right() -> None:
    """True: dog, run. Said: dog, cat. One of two claims is true, one of two faults is found. The second text
    is right and the critic finds a fault in it: 1 of 3 claims is true. p_ok 0.2 for the wrong
    one, 0.6 for the right."""
    wrong = replace(
        draft("8"),
        reward=0.5,
        rewards=(MISSING,),
        critiques=(Critique(text="missing: dog, cat\nVerdict: revise", critic="m", p_ok=0.2),),
    )
    right = replace(draft("7", 1), reward=1.0, rewards=(FINE,))
    right = replace(right, critiques=(Critique(text="missing: cat", critic="m", p_ok=0.6),))
    outcome = judged([wrong, right])
    assert claims_made(outcome) == Claims(said=3, true=2, precision=1 / 3, recall=1 / 2)
    found = calibrated(outcome)
    assert found is not None and (found.n, found.auc) == (2, 1.0)
    assert found.ece == pytest.approx((0.2 + 0.4) / 2)
    unscored = replace(wrong, reward=None)
    assert claims_made(judged([unscored])) == Claims()
    assert calibrated(judged([unscored])) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"select": SelectConfig(strategy="all", learn="details")}, "critique.source"),
        (
            {
                "select": SelectConfig(strategy="all", learn="details"),
                "critique": CritiqueConfig(passes=1, source="rewards", feedback="rewards"),
            },
            "critique.feedback",
        ),
        ({"evaluate": EvaluateConfig(critic="model")}, "evaluate.revise"),
        ({"critique": CritiqueConfig(passes=1, source="rewards", verdict="scored")}, "verdict"),
        ({"critique": CritiqueConfig(passes=1, source="rewards", critic_model="x")}, "critic_model"),
        ({"critique": CritiqueConfig(passes=1, ok_from=0.3)}, "ok_from"),
        ({"critique": CritiqueConfig(passes=1, choice_prompt="./mine.md")}, "choice_prompt"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_method(Config(**settings))


def test_a_source_that_is_nothing_is_named_with_what_it_can_be() -> None:
    config = Config(critique=CritiqueConfig(passes=1, source="nonsense"))
    with pytest.raises(ConfigError, match=r"critique\.source nonsense: use model, rewards, the name"):
        check_named(config)


def test_nothing_to_learn_says_that_no_reward_criticised_and_what_would() -> None:
    """Before, rows with a model's critique were called "revisions without a critique"."""
    rows = [replace(draft("8"), reward=0.0, critiques=(Critique(text="bad", critic="local policy:ab"),))]
    found = select(rows, DETAILS)
    assert why_nothing(rows, DETAILS, found.counts) == (
        "nothing to learn from 1 answer: 1 answer that no reward criticised\n"
        "try critique.source=rewards (`selfrefine critique`)"
    )
