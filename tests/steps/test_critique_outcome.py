"""What critique came to: what it mended and broke, beside fresh samples for the same tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from msgspec import UNSET
from msgspec.structs import replace
from test_critique import CRITIC, OFF, OK, POLICY, TEMPLATES, draft, drafted, run

from selfrefine.config import Sampling
from selfrefine.engines.base import Completion, Request
from selfrefine.engines.scripted import Scripted
from selfrefine.seeds import row_seed
from selfrefine.steps.critique import CritiqueSettings, critique
from selfrefine.steps.critique_outcome import (
    Arms,
    Outcome,
    PassOutcome,
    Tokens,
    nearness,
    summary,
)
from selfrefine.steps.fresh import MAX_FRESH, n_fresh


def test_fresh_samples_are_as_many_as_the_tokens_would_pay_for() -> None:
    # Critique 30 tokens, revision 2; the drafts of this task have 2 and 8 tokens, 5 in the mean: 32/5 -> 6.
    policy = Scripted(
        [{"match": "<critique>", "answers": ["7"]}, {"match": "^What is", "answers": ["7", "123", "5", "?"]}]
    )
    result = run([draft("8"), draft("7" * 7, 1)], CritiqueSettings(), policy=policy)
    mine = [row for row in result.controls["drafts"] if row.index == 0]
    assert [row.id for row in mine] == [f"t.r2.s0.f{k}" for k in range(6)]
    assert [row.seed for row in mine] == [row_seed(11, "fresh", k, 2, "t", 0) for k in range(6)]
    assert all(row.messages is UNSET and row.parent_id is None for row in mine)
    answers = ["7", "123", "5", "?"]
    assert [row.text for row in mine] == [answers[row.seed % 4] for row in mine]

    outcome = result.outcome
    fresh = outcome.fresh["drafts"]
    assert (fresh.samples, outcome.budget_tokens) == (12, 64)
    assert fresh.tokens == sum(len(row.text) + 1 for row in result.controls["drafts"])
    # the mean over what could be scored: "?" is neither right nor wrong
    rates = []
    for index in (0, 1):
        texts = [row.text for row in result.controls["drafts"] if row.index == index and row.text != "?"]
        rates.append(texts.count("7") / len(texts))
    assert fresh.right == pytest.approx(sum(rates))
    assert fresh.best_right == sum(rate > 0 for rate in rates)


def test_a_short_draft_alone_does_not_buy_a_crowd() -> None:
    """A draft of 2 tokens, a critique of 30 and a revision of 14: 44 tokens, of which the draft's own length
    would buy 22 fresh samples. With the revision the mean is 8: 44 / 8 -> 6 samples, of 8 tokens each."""
    policy = Scripted(
        [{"match": "<critique>", "answers": ["1" * 13]}, {"match": "^What is", "answers": ["1234567"]}]
    )
    outcome = run([draft("8")], CritiqueSettings(), policy=policy).outcome
    fresh = outcome.fresh["drafts"]
    assert (fresh.samples, outcome.budget_tokens, fresh.tokens) == (6, 44, 48)


def test_how_many_fresh_samples() -> None:
    assert n_fresh(30, [10, 10]) == 3
    assert n_fresh(34, [5, 15]) == 3
    assert n_fresh(36, [10]) == 4
    assert n_fresh(1, [100]) == 1  # an expensive draft still gets its one
    assert n_fresh(10_000, [2]) == MAX_FRESH


def test_the_comparison_is_over_the_same_drafts() -> None:
    # "4" is revised to what cannot be scored: it is in no rate of the comparison, on no side.
    policy = Scripted([{"match": drafted("4"), "answers": ["?"]}, {"match": "", "answers": ["7"]}])
    rows = [draft("8", 0), draft("4", 1), draft("7", 2)]
    shown = summary(run(rows, CritiqueSettings(), policy=policy).outcome)
    assert (shown.drafts, shown.verdict_ok, shown.revisions) == (3, 1, 2)
    assert shown.comparison.compared == 1
    assert shown.comparison.right == Arms(draft=0.0, revision=1.0, fresh=1.0)
    assert shown.comparison.reward == Arms(draft=0.0, revision=1.0, fresh=1.0)
    assert shown.comparison.fresh_best_right == 1.0
    n_ok = len(OK) + 1
    # every critique counts in the total; the budget is of the two revised drafts: 2 x (30 + 2)
    assert shown.tokens == Tokens(draft=6, critique=60 + n_ok, revision=4, fresh=64, fresh_budget=64)
    assert shown.cost.tokens == 64 + n_ok  # the drafts are counted where they were sampled


def test_without_a_comparison_or_anything_at_all_rates_are_null_not_zero() -> None:
    nothing = summary(run([]).outcome)
    assert nothing.unparsed_share is None
    assert nothing.comparison.right == Arms()
    assert nothing.comparison.fresh_best_right is None
    unscored = critique([draft("8")], POLICY, CRITIC, TEMPLATES, OFF, 11)
    assert unscored.outcome.passes[0].unscored == 1
    assert summary(unscored.outcome).comparison.compared == 0


def test_a_cooler_revision_is_put_beside_fresh_samples_as_cool() -> None:
    """The trap: a second answer at a lower temperature is better than a draft all by itself, and the critique
    gets the credit. Greedy revisions say 5, which is wrong; so does one greedy fresh sample. Samples at
    temperature 1 say 7 where the seed is even."""

    class Cool(Scripted):
        def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
            text = "5" if sampling.temperature == 0 else "7"
            for batch in super().generate(requests, sampling):
                yield [replace(one, text=text, token_ids=(*text.encode(), 256)) for one in batch]

    settings = CritiqueSettings(revision=Sampling(temperature=0.0), drafting=Sampling(temperature=1.0))
    result = run([draft("8")], settings, policy=Cool([]))
    assert {arm: [row.text for row in rows] for arm, rows in result.controls.items()} == {
        "drafts": ["7"] * 16,  # (30 + 2) / 2
        "revisions": ["5"],  # all greedy samples of a prompt are one
    }
    assert [row.id for row in result.controls["revisions"]] == ["t.r2.s0.g0"]
    assert result.controls["revisions"][0].seed == row_seed(11, "fresh-as-revised", 0, 2, "t", 0)
    shown = summary(result.outcome)
    assert (shown.comparison.fresh_as, shown.comparison.fresh_samples) == ("drafts", 16)
    assert shown.comparison.right == Arms(draft=0.0, revision=0.0, fresh=1.0)
    assert shown.tokens.fresh == 34


def test_one_temperature_is_one_kind_of_fresh_sample() -> None:
    settings = CritiqueSettings(revision=Sampling(temperature=0.7), drafting=Sampling(temperature=0.7))
    assert list(run([draft("8")], settings).controls) == ["drafts"]


def test_a_policy_that_answers_again_does_not_depend_on_its_draft() -> None:
    """Draft "a b c d". Changed: "a b c e", 3 of 4 words in common. Fresh samples: "x b y z", 1 of 4.
    Distance 0.25 against 0.75: dependence 0.5. A policy that answers again says "x b y z" twice: 0."""
    before = replace(draft("a b c d"), reward=0.0)
    fresh = [replace(draft("x b y z"), id="f", reward=0.0)]
    changed = replace(draft("a b c e"), id="v", reward=1.0)
    found = summary(nearness([before, changed], {"drafts": fresh})).nearness
    assert (found.revisions, found.copied) == (1, 0.0)
    assert (found.distance, found.fresh_distance, found.dependence) == pytest.approx((0.25, 0.75, 0.5))
    again = summary(nearness([before, replace(fresh[0], id="v")], {"drafts": fresh})).nearness
    assert again.dependence == 0.0
    copied = summary(nearness([before, replace(before, id="v", text="a b c d\n")], {})).nearness
    assert (copied.copied, copied.distance, copied.fresh_distance, copied.dependence) == (
        1.0,
        0.0,
        None,
        None,
    )
    assert summary(Outcome()).nearness.distance is None


def test_right_after_wrong_and_after_right_drafts() -> None:
    """The issue's trial: 0.35 after wrong drafts and 0.43 after right ones, so the draft hardly mattered."""
    passes = (
        PassOutcome(wrong_right=1, wrong_wrong=3),
        PassOutcome(wrong_wrong=4, right_right=3, right_wrong=1),
    )
    found = summary(Outcome(passes=passes)).nearness
    assert (found.right_after_wrong, found.right_after_right) == (1 / 8, 3 / 4)


def test_windows_add_up_to_the_whole() -> None:
    rows = [draft(text, i, task=f"t{i}") for i, text in enumerate(["8", "9", "7", "mumble", "9"])]
    settings = CritiqueSettings(passes=3)
    whole = run(rows, settings)
    parts = [run(rows[:2], settings), run(rows[2:3], CritiqueSettings(passes=1)), run(rows[3:], settings)]
    assert [row for part in parts for row in part.rows] == whole.rows
    assert sum((part.outcome for part in parts), Outcome()) == whole.outcome
