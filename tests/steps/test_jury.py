"""Several critics of one text: how they vote, what the reviser reads, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from test_critics import SCORED, Leaning
from test_critique import CRITIC, OK, POLICY, REVISE, TEMPLATES, draft, drafted, score

from selfrefine.engines.scripted import Scripted
from selfrefine.records import Critique, Reward, Sample, decode_sample, encode
from selfrefine.rewards import REWARDS
from selfrefine.rewards.base import RewardOptions
from selfrefine.steps.critics import Asked, Critic, own_rewards
from selfrefine.steps.critique import CritiqueResult, CritiqueSettings, critique
from selfrefine.steps.critique_outcome import ClaimSums, summary
from selfrefine.steps.jury import Member, jury
from selfrefine.steps.votes import VoteSums, agreed, counted

OFF = CritiqueSettings(control=False)


def vote(verdict: Any, text: str = "", score: float | None = None, **more: Any) -> Critique:
    return Critique(text=text, verdict=verdict, score=score, critic="m", prompt_sha256="p", **more)


FAILED = vote(None, finish_reason="error", error="too long")
UNREAD = vote(None, "Well, hm.", error="no verdict line")


def together(*votes: Critique) -> Critique:
    """What critics with these votes say of one text together."""

    def says(one: Critique) -> Critic:
        return lambda asked: [one for _ in asked]

    critics = [(f"c{k}", says(one)) for k, one in enumerate(votes)]
    asked = Asked(draft("8"), (), {}, 5, 1)
    [made] = jury(critics)([asked])
    return made


@pytest.mark.parametrize(
    ("votes", "verdict"),
    [
        (["ok", "ok", "revise"], "ok"),
        (["ok", "revise", "revise"], "revise"),
        (["ok", "revise"], "revise"),  # a tie: one of them found a fault
        (["ok", None], "ok"),  # 1 of the 1 that can be read
        (["ok", None, "revise"], "revise"),
        ([None, None], None),
    ],
)
def test_ok_takes_more_than_half_of_the_verdicts_that_can_be_read(
    votes: Sequence[str | None], verdict: str | None
) -> None:
    made = together(*map(vote, votes))
    assert (made.verdict, made.critic, made.finish_reason) == (verdict, "critics", "stop")
    assert [one.verdict for one in made.votes or ()] == votes


def test_the_reviser_reads_what_those_say_who_want_a_revision_once_and_without_names() -> None:
    made = together(
        vote("revise", "missing: dog\n", 0.25),
        vote("ok", "lovely", 1.0),
        vote("revise", "missing: dog"),
        vote("revise", "no verb", 0.5),
        UNREAD,
    )
    assert made.text == "missing: dog\n\nno verb"
    assert made.score == pytest.approx((0.25 + 1.0 + 0.5) / 3)  # an unknown score is not 0
    assert (made.messages, made.token_ids, made.prompt_sha256) == ((), (), "")


def test_what_nobody_could_read_or_make_has_no_verdict_and_says_why() -> None:
    """An unreadable critique still counts as to be revised, by what was written; a failed one ends it."""
    unread = together(UNREAD, FAILED)
    assert (unread.verdict, unread.score, unread.finish_reason) == (None, None, "stop")
    assert unread.text == "Well, hm."
    assert unread.error == "c0: no verdict line; c1: too long"
    failed = together(FAILED, FAILED)
    assert (failed.verdict, failed.score, failed.finish_reason) == (None, None, "error")
    assert failed.error == "c0: too long; c1: too long"
    one_left = together(FAILED, vote("ok"))
    assert (one_left.verdict, one_left.error) == ("ok", None)


def test_a_text_that_was_cut_off_is_cut_off_in_the_whole() -> None:
    assert (
        together(vote("revise", "a", finish_reason="length"), vote("revise", "b")).finish_reason == "length"
    )
    assert together(vote("ok", "a", finish_reason="length"), vote("revise", "b")).finish_reason == "stop"


COVERAGE = Reward(name="coverage", value=0.5, detail="missing concepts: dog, run")
JURY = (Member("model"), Member("policy"), Member("rewards", own_rewards))
BOTH = Scripted([{"match": drafted("8"), "answers": [OK]}, {"match": "", "answers": ["7"]}])


def judged(rows: Sequence[Sample], critics: Sequence[Member] = JURY, **more: Any) -> CritiqueResult:
    settings = CritiqueSettings(**({"control": False} | more))
    return critique(rows, BOTH, CRITIC, TEMPLATES, settings, 11, critics=critics)


def test_model_policy_and_rewards_vote_on_one_draft_and_all_tokens_are_counted() -> None:
    """The critic says revise (30 tokens), the policy ok (27), the rewards what is missing (none): 2 of 3."""
    row = replace(draft("8"), rewards=(COVERAGE,))
    result = judged([row])
    made = result.rows[0].critiques[0]
    said = made.votes or ()
    assert [one.verdict for one in said] == ["revise", "ok", "revise"]
    assert [len(one.token_ids) for one in said] == [30, len(OK) + 1, 0]
    assert [one.critic for one in said] == [
        f"{CRITIC.signature} policy:{CRITIC.policy[:12]}",
        f"{BOTH.signature} policy:{BOTH.policy[:12]}",
        "rewards",
    ]
    assert made.verdict == "revise" and made.text == f"{REVISE}\n\n{COVERAGE.detail}"
    assert made.score == pytest.approx((0.2 + 1.0 + 0.5) / 3)
    asked = result.rows[1].messages
    assert isinstance(asked, tuple) and f"<critique>\n{made.text}\n" in asked[-1].content
    tokens = summary(result.outcome).tokens
    assert made.sampled_tokens == tokens.critique == 30 + len(OK) + 1
    assert result.outcome.passes[0].ok == 0 and result.outcome.passes[0].critiques == 1


def test_a_critic_among_others_is_asked_what_it_is_asked_alone() -> None:
    """Another model must not draw with the same seed, and nobody was asked for what the rewards told."""
    seen: dict[str, Asked] = {}

    def noted(name: str) -> Critic:
        def critic(asked: Sequence[Asked]) -> list[Critique]:
            seen[name] = asked[0]
            return [vote("ok") for _ in asked]

        return critic

    asked = Asked(draft("8"), (), {}, 5, 0)
    jury([(name, noted(name)) for name in ("model", "policy", "rewards")])([asked])
    assert seen["model"] == asked
    assert seen["policy"].seed != asked.seed and seen["policy"]._replace(seed=5) == asked
    told = judged([replace(draft("8"), rewards=(COVERAGE,))]).rows[0].critiques[0].votes or ()
    assert [bool(one.messages) for one in told] == [True, True, False]


def test_rows_with_votes_are_read_back_and_others_have_no_such_field() -> None:
    [row, _] = judged([replace(draft("8"), rewards=(COVERAGE,))]).rows
    assert decode_sample(encode(row), "x") == row
    assert b"votes" not in msgspec.json.encode(Critique(text="x"))
    assert Critique(text="x", token_ids=(1, 2)).sampled_tokens == 2


def test_scored_verdicts_are_those_of_the_models_and_their_chances_are_counted_one_by_one() -> None:
    """p_ok is the vote's: 0.2 of the model. Of the whole there is none."""
    row = replace(draft("8"), rewards=(COVERAGE,), reward=0.5)
    leaning = Leaning([{"match": "", "answers": ["missing concepts: dog\nVerdict: revise"]}])
    settings = CritiqueSettings(verdict="scored", control=False)
    jury = (Member("model"), Member("rewards", own_rewards))
    result = critique([row], POLICY, leaning, SCORED, settings, 11, critics=jury)
    made = result.rows[0].critiques[0]
    by_model, by_rewards = made.votes or ()
    assert by_model.p_ok == pytest.approx(0.2) and made.p_ok is msgspec.UNSET
    assert by_rewards.p_ok is msgspec.UNSET and by_rewards.verdict == "revise"
    assert sum(one.n for one in result.outcome.chances.bins) == 1
    # one claim of the model, dog, is one of the two things that are missing; the rewards' words are no claim
    assert result.outcome.claims == ClaimSums(said=1, true=2, both=1)


def test_the_reward_critic_reads_what_they_say_together_and_signs_with_all_of_them() -> None:
    made = together(vote("revise", score=0.25), vote("ok", score=0.75))
    scorer = REWARDS.get("critic").make(None, RewardOptions())
    [found] = scorer.score([replace(draft("8"), critiques=(made,))])
    assert found.value == pytest.approx(0.5)
    assert found.signature == "critic:m|prompt:p + m|prompt:p"


def test_agreement_is_a_hand_computation_of_alpha() -> None:
    """Two critics, four texts: ok ok, ok revise, revise revise, revise (nothing).

    Verdicts: three units have two values, 3 ok and 3 revise among 6. Apart: 2 ordered pairs in one unit of
    m - 1 = 1, so 2. By chance: (36 - 9 - 9) / 5 = 3.6. Alpha: 1 - 2 / 3.6 = 0.444.
    Scores: (0.2, 0.4) and (0.8, 0.8): apart 2 * 0.04 = 0.08; by chance the squared distances of the ordered
    pairs, 2 * (0.04 + 0.36 * 2 + 0.16 * 2) / 3 = 0.72. Alpha: 1 - 0.08 / 0.72 = 0.889.
    """
    units = [
        together(vote("ok", score=0.8), vote("ok", score=0.8)),
        together(vote("ok"), vote("revise", score=0.3)),
        together(vote("revise", score=0.2), vote("revise", score=0.4)),
        together(vote("revise"), FAILED),
    ]
    names = ["a", "b"]
    total = counted(units[:1], names) + counted(units[1:3], names) + counted(units[3:], names)
    found = agreed(total)
    assert found is not None
    assert found.verdict_alpha == pytest.approx(1 - 2 / 3.6)
    assert found.score_alpha == pytest.approx(1 - 0.08 / 0.72)
    assert (found.verdict_units, found.score_units) == (3, 2)
    assert found.critics == (
        VoteSums(critic="a", ok=2, revise=2),
        VoteSums(critic="b", ok=1, revise=2, failed=1, first_failure="too long"),
    )
    assert agreed(counted([vote("ok")], [])) is None  # one alone agrees with nobody


def test_agreement_is_counted_over_texts_and_passes_of_a_critique() -> None:
    rows = [replace(draft("8", k), rewards=(COVERAGE,)) for k in range(2)]
    found = summary(judged(rows).outcome).agreement
    assert found is not None
    # all alike over two texts: revise ok revise, twice. 4 revise, 2 ok: 1 - (2 * 4 / 2) / ((36 - 20) / 5)
    assert found.verdict_alpha == pytest.approx(1 - 4 / 3.2)
    assert [(one.critic, one.ok, one.revise) for one in found.critics] == [
        ("model", 0, 2),
        ("policy", 2, 0),
        ("rewards", 0, 2),
    ]
    assert summary(critique(rows, POLICY, CRITIC, TEMPLATES, OFF, 11, score).outcome).agreement is None
