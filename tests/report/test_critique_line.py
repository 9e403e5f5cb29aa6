"""The line under `critique`: was revising worth its tokens."""

from __future__ import annotations

from selfrefine.report.words import critique_line
from selfrefine.steps.critique_outcome import Arms, CritiqueSummary, EqualCost


def line(right: Arms, reward: Arms) -> str:
    compared = EqualCost(compared=40, fresh_samples=40, right=right, reward=reward)
    return critique_line(CritiqueSummary(drafts=40, revisions=40, comparison=compared))


def test_a_graded_reward_is_told_beside_the_share_of_right_answers() -> None:
    """The trap: no sentence uses all four words, and revising that found two more of them looks useless."""
    none = Arms(draft=0.0, revision=0.0, fresh=0.0)
    told = line(none, Arms(draft=0.2, revision=0.7, fresh=0.25))
    assert "right at equal tokens: draft 0.000, revision 0.000, fresh 0.000 (40 compared)" in told
    assert told.endswith("mean reward draft 0.200, revision 0.700, fresh 0.250")


def test_right_or_wrong_is_said_once() -> None:
    rates = Arms(draft=0.1, revision=0.3, fresh=None)
    assert line(rates, rates).endswith("draft 0.100, revision 0.300 (40 compared)")
