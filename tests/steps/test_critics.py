"""Critics that need no reading: the model's choice by its probabilities, and the rewards' own words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from test_critique import POLICY, TEMPLATES, draft, score

from selfrefine import prompts
from selfrefine.config import Config
from selfrefine.engines.scripted import Scripted
from selfrefine.judging import CritiqueConfig
from selfrefine.records import Critique, Reward, Sample
from selfrefine.stages.session import Session
from selfrefine.steps.best_of import choose
from selfrefine.steps.critics import judging, own_rewards, p_ok, scored
from selfrefine.steps.critique import CritiqueSettings, Templates, critique
from selfrefine.steps.critique_outcome import PassOutcome

CHOICE = prompts.load("choice", "choice")
SCORED = Templates(TEMPLATES.critique, TEMPLATES.revise, CHOICE)


class Leaning(Scripted):
    """Finds "7" right with 0.9 of ok + revise, all else with 0.2; adds 0.1 to what is offered first.

    Grades: all on 4 where they are offered upwards, all on 2 where downwards.
    """

    def score(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, bare: bool = False
    ) -> list[tuple[float, ...]]:
        made = []
        for prompt, ids in zip(prompts, completions, strict=True):
            asked, reply = self.decode(prompt), self.decode(ids)
            if reply.isdigit():
                p = 0.98 if reply == ("4" if "0, 1, 2, 3, 4 or 5" in asked else "2") else 1e-9
            else:
                first = asked.index("ok or revise") if "ok or revise" in asked else -1
                ok = (0.9 if "<draft>\n7\n" in asked else 0.2) + (0.1 if first >= 0 else -0.1)
                p = 0.5 * (ok if reply == "ok" else 1 - ok)  # half of the mass is on other replies
            made.append((math.log(max(p, 1e-12)), *(0.0,) * (len(ids) - 1)))
        return made


def judged(rows: Sequence[Sample], ok_from: float = 0.5, revise: bool = True) -> list[Sample]:
    settings = CritiqueSettings(verdict="scored", ok_from=ok_from, revise=revise, control=False)
    writes = Leaning([{"match": "", "answers": ["Off.\nScore: 5\nVerdict: ok"]}])
    return critique(rows, POLICY, writes, SCORED, settings, 11, score).rows


def test_a_verdict_is_the_critics_choice_in_both_orders_and_what_is_ok_costs_nothing() -> None:
    first, revision, right = judged([draft("8"), draft("7", 1)])
    bad, good = first.critiques[0], right.critiques[0]
    # 0.3 and 0.1 as the order leans, 0.2 together; what the critic then writes cannot change its verdict
    assert bad.p_ok == pytest.approx(0.2) and bad.verdict == "revise"
    assert bad.text.endswith("Verdict: ok") and bad.error is None
    assert good.p_ok == pytest.approx(0.9) and good.verdict == "ok"
    assert (good.text, good.token_ids, good.prompt_token_ids) == ("", (), ())
    # grades: 4 of 5 in one order, 2 of 5 in the other
    assert bad.score == pytest.approx(0.6) and good.score == pytest.approx(0.6)
    assert revision.text == "7" and revision.parent_id == first.id


def test_of_several_answers_the_one_the_critic_finds_ok_is_given() -> None:
    """`--best-of 3 --by critic`: p(ok) is 0.2, 0.9, 0.2. Both orders are asked, each distinct text once."""
    engine = Leaning([])
    rows = [draft("8"), draft("7", 1), draft("8", 2)]
    [found], read = choose(rows, "critic", engine, {}, CHOICE)
    assert isinstance(found.extra, dict)
    how = msgspec.json.decode(found.extra["best_of"])
    assert (found.text, how["of"], how["by"]) == ("7", 3, "critic")
    assert how["score"] == pytest.approx(0.9)
    # Two distinct texts, each asked for a verdict in both orders and for no grade.
    [(_, one)] = p_ok(engine, CHOICE, [judging(rows[0])])
    question = CHOICE.render(**judging(rows[0]).shown, choices="ok or revise", top="")
    # A byte is a token: a marker and an end around the question, and the marker of the answer.
    assert (one, read) == (2 * (len(question) + 3), 2 * one)
    cut = [replace(row, finish_reason="length") for row in rows]
    [first], read = choose(cut, "critic", engine, {}, CHOICE)
    assert (first.text, read) == ("8", 0)


def test_the_threshold_decides_and_a_judge_that_only_judges_writes_nothing() -> None:
    [row] = judged([draft("8")], ok_from=0.15)
    assert row.critiques[0].verdict == "ok"
    [row] = judged([draft("8")], revise=False)
    assert (row.critiques[0].verdict, row.critiques[0].text) == ("revise", "")
    assert row.critiques[0].prompt_sha256 == CHOICE.sha256


def test_a_text_too_long_to_be_judged_has_no_verdict_and_says_why() -> None:
    critic = scored(Leaning([], context_tokens=200), CHOICE, 0.5, None)
    settings = CritiqueSettings(verdict="scored", revise=False)
    [row] = critique([draft("8" * 300)], POLICY, Leaning([], context_tokens=200), SCORED, settings, 11).rows
    made = row.critiques[0]
    assert (made.verdict, made.score, made.finish_reason) == (None, None, "error")
    assert "too long" in (made.error or "")
    assert critic([]) == []


def rewarded(*rewards: Reward) -> Sample:
    return replace(draft("8"), rewards=rewards)


def test_rewards_criticise_word_for_word_and_cost_nothing() -> None:
    """What the issue's trial did by hand: "missing: dog, run" is the critique."""
    found = Reward(name="coverage", value=0.5, detail="missing concepts: dog, run")
    fine = Reward(name="sentence", value=1.0, detail="a sentence")
    mute = Reward(name="length", value=0.25)
    two = rewarded(found, fine, mute)
    result = critique([two], POLICY, POLICY, TEMPLATES, CritiqueSettings(control=False), 11, tell=own_rewards)
    made = result.rows[0].critiques[0]
    assert made.text == "missing concepts: dog, run\nlength: 0.25 of 1"
    assert (made.verdict, made.critic, made.token_ids) == ("revise", "rewards", ())
    assert made.score == pytest.approx((0.5 + 1.0 + 0.25) / 3)
    asked = result.rows[1].messages
    assert isinstance(asked, tuple) and "<critique>\nmissing concepts: dog, run\n" in asked[-1].content
    assert result.outcome.critique_tokens == 0 and result.outcome.revision_tokens > 0


def test_what_rewards_find_right_is_left_and_what_they_cannot_score_is_not_guessed() -> None:
    right = rewarded(Reward(name="a", value=1.0))
    unscored = replace(rewarded(Reward(name="a", value=None, error="no reference")), id="u", index=1)
    never = replace(rewarded(), id="n", index=2)
    rows = critique(
        [right, unscored, never], POLICY, POLICY, TEMPLATES, CritiqueSettings(), 11, tell=own_rewards
    ).rows
    assert [row.id for row in rows] == ["t.r2.s0", "u", "n"]  # nobody was revised
    verdicts = [row.critiques[0].verdict for row in rows]
    assert verdicts == ["ok", None, None]
    assert [row.critiques[0].error for row in rows] == [None, "a: no reference", "no reward on this row"]


def test_a_mark_below_one_is_where_a_graded_reward_is_good_enough() -> None:
    row = rewarded(Reward(name="fluency", value=0.8, detail="2.1 nats per token"))
    for mark, verdict in ((1.0, "revise"), (0.8, "ok")):
        settings = CritiqueSettings(mark=mark, control=False)
        first = critique([row], POLICY, POLICY, TEMPLATES, settings, 11, tell=own_rewards).rows[0]
        assert first.critiques[0].verdict == verdict


def test_a_function_of_the_users_criticises_in_words(tmp_path: Path) -> None:
    """A compiler, a linter: a text is what is wrong, an empty one is nothing, None cannot say. A text that
    holds the reference is withheld, as a reward's detail is."""
    (tmp_path / "lint.py").write_text(
        "def check(sample):\n"
        "    return {'8': 'line 1: E101', '7': '', 'tell': 'it is 42, you fool'}.get(sample.text)\n"
    )
    config = Config(critique=CritiqueConfig(source=f"{tmp_path}/lint.py:check"))
    session = Session(config, reporter=None, load=lambda: POLICY)  # type: ignore[arg-type]
    rows = [draft(text, k, references=("42",)) for k, text in enumerate(["8", "7", "tell", "none"])]
    found = critique(
        rows, POLICY, POLICY, TEMPLATES, CritiqueSettings(control=False), 11, score, tell=session.tell
    )
    made = [row.critiques[0] for row in found.rows if row.parent_id is None]
    assert [one.verdict for one in made] == ["revise", "ok", "revise", None]
    assert made[0].text == "line 1: E101"
    assert made[2].text == "(withheld: it contains a reference)"
    assert "returned None" in (made[3].error or "")
    assert found.outcome.passes[0] == PassOutcome(
        critiques=4, ok=1, failed=1, revisions=2, wrong_right=1, wrong_wrong=1, reward_after=1.0
    )


def test_a_row_without_a_scored_verdict_has_no_such_field() -> None:
    """Rows of runs from before must not gain a field when they are written again."""
    assert b"p_ok" not in msgspec.json.encode(Critique(text="x"))
    assert b'"p_ok":0.5' in msgspec.json.encode(Critique(text="x", p_ok=0.5))
