"""What a critique is worth, in sentences that a person can act on."""

from __future__ import annotations

from selfrefine.agreement import Calibration, calibration
from selfrefine.report.criticised import critic_lines
from selfrefine.steps.critique_outcome import Claims, CritiqueSummary, Nearness
from selfrefine.steps.votes import Agreement, VoteSums


def test_nothing_measured_is_nothing_said() -> None:
    assert list(critic_lines(CritiqueSummary())) == []


def test_each_measure_is_a_sentence() -> None:
    near = Nearness(
        revisions=40,
        copied=0.1,
        distance=0.3,
        fresh_distance=0.7,
        dependence=0.4,
        right_after_wrong=0.25,
        right_after_right=None,
    )
    pairs = [(0.9, True), (0.2, False)]
    found = CritiqueSummary(
        nearness=near,
        claims=Claims(said=8, true=4, precision=0.25, recall=0.5),
        calibration=calibration(Calibration.of(pairs)),
    )
    assert list(critic_lines(found)) == [
        "revisions are 0.30 from their drafts (0 is a copy, 1 shares no word), 10 % are copies; fresh "
        "samples are 0.70 from them: the draft is used",
        "revisions are right in 0.250 after wrong drafts",
        "8 claims of the critic, 25 % of them true; 50 % of what is wrong was claimed",
        "2 scored verdicts: AUC 1.00 (0.5 is chance), calibration error 0.15",
    ]


def test_a_policy_that_answers_again_is_named() -> None:
    near = Nearness(revisions=9, copied=0.0, distance=0.7, fresh_distance=0.7, dependence=0.0)
    [line] = critic_lines(CritiqueSummary(nearness=near))
    assert line.endswith("the draft is ignored")


def test_a_revision_that_went_on_from_a_fault_is_not_told_by_how_like_its_draft_it_is() -> None:
    """It begins as its draft by construction, and short answers are all alike."""
    near = Nearness(revisions=9, resumed=8, copied=0.0, distance=0.1, fresh_distance=0.1, dependence=0.0)
    [line] = critic_lines(CritiqueSummary(nearness=near))
    assert line.endswith("8 of 9 went on from the draft's fault") and "ignored" not in line


def test_several_critics_have_their_agreement_and_what_each_says() -> None:
    votes = (
        VoteSums(critic="model", ok=3, revise=1, unread=1),
        VoteSums(critic="policy", unread=2, failed=3),
        VoteSums(critic="coverage", revise=5),
    )
    found = Agreement(verdict_alpha=0.414, verdict_units=4, score_alpha=-0.2, score_units=3, critics=votes)
    assert list(critic_lines(CritiqueSummary(agreement=found))) == [
        "3 critics: alpha 0.41 on verdicts, -0.20 on scores of 4 texts (1 is agreement, 0 is chance)",
        "verdicts: model 75 % ok (1 without), policy no verdict, coverage 0 % ok",
    ]
    first, _ = critic_lines(CritiqueSummary(agreement=Agreement(critics=votes)))
    assert first == "3 critics: alpha is not known, as where all say the same"
