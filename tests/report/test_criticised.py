"""What a critique is worth, in sentences that a person can act on."""

from __future__ import annotations

from selfrefine.agreement import Calibration, calibration
from selfrefine.report.criticised import critic_lines
from selfrefine.steps.critique_outcome import Claims, CritiqueSummary, Nearness


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
