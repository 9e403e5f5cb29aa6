"""What a round came to, from the files of runs that were written down row by row."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import REJECTED, add_round, answer, end, made, start

from selfrefine.reflection.diagnosis import changed, diagnosis
from selfrefine.reflection.overview import gain, overview


def test_a_round_says_what_it_learnt_and_which_tasks_flipped(tmp_path: Path) -> None:
    run = made(tmp_path / "r")
    start(run, right=[0, 1])
    add_round(run, right=[0, *range(2, 12)], losses=(3.0, 1.0, 1.0, 1.0, 0.5, 0.0))
    found = diagnosis(run, 1)
    assert (found.prompts, found.samples, found.truncated) == (4, 8, 2)
    assert (found.learnt, found.learnt_prompts, found.steps) == (4, 4, 6)
    assert found.passes is not None and (found.passes.scored, found.passes.passing) == (4, 4)
    # Two of the six steps are a third: (3 + 1) / 2 and (0.5 + 0) / 2.
    assert (found.loss_early, found.loss_late) == (2.0, 0.25)
    assert found.flips is not None
    assert (found.flips.became_right, found.flips.became_wrong, found.flips.stayed_right) == (10, 1, 1)
    assert (found.groups, found.groups_without_spread) == (4, 1)
    assert (found.trained, found.measured) == ({"numeric": 0.5}, {"numeric": 0.55})
    # Task 1 became wrong: a loss stands before the gains, however many these are.
    assert found.examples[0].task_id == "gate101" and found.examples[0].after == "7777"
    assert found.examples[1].after_reward == 1.0


def test_what_a_tag_did_by_luck_is_no_finding(tmp_path: Path) -> None:
    """Of 10 additions all become right, of 10 subtractions one: the second is noise, and `size`, which has
    one value, is no cut."""
    run = made(tmp_path / "r")
    start(run)
    add_round(run, right=[*range(0, 20, 2), 1])
    found = diagnosis(run, 1)
    assert found.looked_at == 2
    assert [(one.tag, one.value, one.after) for one in found.improved] == [("sign", "+", 1.0)]
    assert found.worse == ()


def test_replayed_and_rejected_rows_are_not_what_a_round_learnt(tmp_path: Path) -> None:
    run = made(tmp_path / "r")
    start(run)
    own = run.tasks("train")
    rows = [
        answer(own[0], 1.0, 1),
        answer(own[1], 0.0, 1),
        answer(own[2], 0.0, 1, lesson=REJECTED),
        answer(own[3], 1.0, 0),  # of another round: replayed
    ]
    add_round(run, right=[], outcome="reject", learnt=rows)
    found = diagnosis(run, 1)
    assert found.passes is not None and (found.passes.scored, found.passes.passing) == (2, 1)
    assert found.replayed == 1


def test_a_measure_that_was_not_trained_on_is_computed_for_what_was_learnt(tmp_path: Path) -> None:
    """Where a run trains on another reward than measures, only this says whether it learns what is meant."""
    run = made(tmp_path / "r", reward__use=["length"], evaluate__measure=["exact"])
    start(run)
    own = run.tasks("train")
    rows = [answer(own[0], 1.0, 1, rewards=()), answer(own[1], 0.0, 1, rewards=())]
    add_round(run, right=[], outcome="reject", learnt=rows)
    found = diagnosis(run, 1).passes
    assert found is not None and (found.measure, found.scored, found.passing) == ("exact", 2, 1)


def test_of_many_learnt_answers_a_part_is_scored_for_the_diagnosis(tmp_path: Path) -> None:
    """A reward that runs programs would take longer here than the round did."""
    run = made(tmp_path / "r", reward__use=["length"], evaluate__measure=["exact"])
    start(run)
    own = run.tasks("train")
    rows = [answer(own[s % 60], float(s % 3 == 0), 1, s, rewards=()) for s in range(600)]
    add_round(run, right=[], outcome="reject", learnt=rows)
    found = diagnosis(run, 1).passes
    # Every third of 600 is right. Of 256 drawn 85 are expected, with a standard deviation of 5.7; every third
    # row would have been all right or all wrong.
    assert found is not None and found.scored == 256 and 62 <= found.passing <= 108
    assert diagnosis(run, 1).passes == found


def test_a_measure_that_asks_a_model_is_null_with_its_reason(tmp_path: Path) -> None:
    run = made(tmp_path / "r", reward__use=["numeric"], evaluate__measure=["fluency"])
    start(run)
    add_round(run, right=[], outcome="reject")
    found = diagnosis(run, 1).passes
    assert found is not None and (found.scored, found.mean) == (0, None)
    assert found.why == "this measure asks a model"


def test_without_gate_tasks_nothing_is_compared_and_that_is_said(tmp_path: Path) -> None:
    run = made(tmp_path / "r", gate=0, tasks__gate=0)
    start(run)
    add_round(run, right=[])
    found = diagnosis(run, 1)
    assert found.flips is None and found.improved == ()
    assert found.suggestion is not None and found.suggestion.flags == ("--set", "tasks.gate=0.2")


def test_the_comparison_is_with_the_accepted_policy_not_with_the_round_before(tmp_path: Path) -> None:
    run = made(tmp_path / "r")
    start(run, right=[0])
    add_round(run, right=[], outcome="reject")
    add_round(run, right=[0, 1], outcome="accept")
    flips = diagnosis(run, 2).flips
    assert flips is not None and (flips.stayed_right, flips.became_right) == (1, 1)


def test_a_look_at_the_counts_reads_no_training_row(tmp_path: Path) -> None:
    """100,000 of them are to be shown within a second."""
    run = made(tmp_path / "r")
    start(run)
    add_round(run, right=[0])
    for name in ("generate", "reward", "selected"):
        run.round(1).file(name).write_bytes(b"{\n")
    seen = overview(run)
    assert seen.diagnosis is not None and seen.diagnosis.learnt == 4 and seen.diagnosis.passes is None
    assert seen.learnt == {1: 4} and seen.damage == ()


def test_of_flipped_tasks_a_few_are_chosen_and_a_gain_is_among_them(tmp_path: Path) -> None:
    run = made(tmp_path / "r")
    own = run.tasks("gate")
    before = [answer(one, float(i < 5)) for i, one in enumerate(own)]
    after = [answer(one, float(i == 7)) for i, one in enumerate(own)]
    found = changed(before, after, most=3)
    assert [one.task_id for one in found] == ["gate100", "gate101", "gate107"]


def test_the_gain_is_measured_on_test_tasks_once_they_were_read_again(tmp_path: Path) -> None:
    run = made(tmp_path / "r")
    start(run, right=[0])
    assert gain(run) is None  # the starting policy against itself
    add_round(run, right=range(10))
    on_gate = gain(run)
    assert on_gate is not None and (on_gate.split, on_gate.change.mean) == ("gate", pytest.approx(0.45))
    end(run, right=range(0, 20, 2))
    on_test = gain(run)
    assert on_test is not None and (on_test.split, on_test.flips.became_right) == ("test", 9)
    assert [(one.value, one.before, one.after) for one in on_test.by_tag] == [
        ("+", pytest.approx(0.1), 1.0),
        ("-", 0.0, 0.0),
    ]


def test_a_damaged_gate_file_costs_its_figures_and_not_the_screen(tmp_path: Path) -> None:
    run = made(tmp_path / "r")
    start(run)
    add_round(run, right=[0])
    run.round(1).file("gate").write_bytes(b"")
    seen = overview(run)
    assert seen.diagnosis is None and seen.gain is None and len(seen.rounds) == 2
    assert any("round-001/gate.jsonl was changed" in one for one in seen.damage)
