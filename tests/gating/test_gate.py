"""Three outcomes by a paired test, and what each of them costs in alpha."""

from __future__ import annotations

import pytest

from selfrefine.gating import gate
from selfrefine.runfolder.summaries import GateDecision, Guard
from selfrefine.stats import Comparison, compare


def judged(
    better: int, worse: int, ties: int, mode: gate.Mode = "significant", alpha: float = 0.05
) -> GateDecision:
    """A candidate that is right on `better` more tasks, wrong on `worse` more, of better + worse + ties."""
    before = {f"t{i}": 0.0 if i < better else 1.0 for i in range(better + worse + ties)}
    after = before | {f"t{i}": 1.0 if i < better else 0.0 for i in range(better + worse)}
    return gate.decide(compare(before, after, 0, 1 - alpha, "greater"), mode, alpha)


def test_better_beyond_luck_is_accepted() -> None:
    # Ten of ten changed tasks for the better: p = 2^-10.
    found = judged(10, 0, 30)
    assert (found.outcome, found.accepted, found.test) == ("accept", True, "mcnemar-exact")
    assert (found.before, found.after, found.difference) == (0.75, 1.0, 0.25)
    assert found.p_value == pytest.approx(2**-10)
    assert (found.n, found.ties, found.unscored) == (40, 30, 0)
    assert found.reason.startswith(
        "kept: 0.750 → 1.000 on 40 gate tasks (paired difference +0.250, 95 % interval [+0.1"
    )
    assert found.reason.endswith("p 0.0010), better (p at most 0.0500)")


def test_better_but_perhaps_by_luck_is_undecided() -> None:
    """The trap of a plain comparison: one task more is "better"."""
    found = judged(4, 1, 95)
    # Four or five heads of five: (5 + 1) / 32.
    assert found.p_value == pytest.approx(6 / 32)
    assert (found.outcome, found.accepted) == ("undecided", False)
    assert "better, but p is above 0.0500: training continues from this candidate" in found.reason


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (3, 3), (2, 9), (0, 1)])
def test_not_better_is_rejected(better: int, worse: int) -> None:
    found = judged(better, worse, 20)
    assert found.outcome == "reject" and found.reason.startswith("rolled back: ")
    assert found.reason.endswith(", not better")


def test_strict_also_wants_the_interval_and_no_warning() -> None:
    sure = judged(10, 0, 30, "strict")
    assert sure.outcome == "accept" and sure.lo is not None and sure.lo > 0
    # 60 against 42 of 200: z = 18 / sqrt(102) = 1.78, beyond 1.64 but not beyond 1.96.
    assert judged(60, 42, 98).outcome == "accept"
    wide = judged(60, 42, 98, "strict")
    assert wide.lo is not None and wide.lo <= 0
    assert wide.outcome == "undecided" and "the 95.0 % interval includes zero (strict)" in wide.reason


def test_strict_does_not_take_five_changes_for_an_interval_above_zero() -> None:
    """p = 1/32 suffices for `significant`; two-sided it is 1/16, and no 95 % interval may leave zero out."""
    assert judged(5, 0, 95).outcome == "accept"
    few = judged(5, 0, 95, "strict")
    assert few.lo is None and few.outcome == "undecided"
    assert few.reason.endswith("too few tasks changed for a 95.0 % interval (strict)")
    assert judged(6, 0, 94, "strict").outcome == "accept"  # 2/64


def test_a_warning_of_a_vetoing_guard_holds_strict_back_and_only_strict() -> None:
    found = compare({f"t{i}": 0.0 for i in range(20)}, {f"t{i}": 1.0 for i in range(20)}, 0, 0.95, "greater")
    warned = [Guard(name="forgetting source b", value=0.4, state="warn", reason="it forgets")]
    length = [Guard(name="length", value=40.0, state="warn", reason="answers are long")]
    assert gate.decide(found, "significant", 0.05, warned).accepted
    assert gate.decide(found, "strict", 0.05, length).accepted
    held = gate.decide(found, "strict", 0.05, warned)
    assert held.outcome == "undecided" and held.reason.endswith("with a warning (strict): it forgets")


def test_a_veto_outweighs_any_gain_unless_the_gate_is_off() -> None:
    found = compare({f"t{i}": 0.0 for i in range(20)}, {f"t{i}": 1.0 for i in range(20)}, 0, 0.95, "greater")
    veto = [Guard(name="gold", value=0.1, against=0.5, state="veto", reason="gold: exact fell by 0.40")]
    held = gate.decide(found, "significant", 0.05, veto)
    assert held.outcome == "reject" and held.reason.endswith("; vetoed: gold: exact fell by 0.40")
    assert gate.decide(found, "off", 0.05, veto).accepted


def test_the_gate_can_be_off_and_says_so() -> None:
    worse = judged(0, 5, 5, "off")
    assert worse.accepted and worse.alpha is None and worse.p_value == 1.0
    assert worse.reason.startswith("kept: ") and worse.reason.endswith(", not better, but the gate is off")
    nothing = gate.decide(compare({}, {}), "off", 0.05)
    assert nothing.accepted and nothing.reason.endswith(
        "no gate task was scored under both policies, the gate is off"
    )


def test_nothing_to_compare_is_no_reason_to_keep() -> None:
    found = gate.decide(compare({"a": None}, {"a": 1.0}), "significant", 0.05)
    assert (found.outcome, found.before, found.difference, found.p_value, found.n, found.unscored) == (
        "reject", None, None, None, 0, 1,
    )  # fmt: skip
    assert found.reason == "rolled back: no gate task was scored under both policies"


def test_only_tasks_scored_under_both_policies_count() -> None:
    """A candidate whose hard tasks could not be scored must not win by leaving them out."""
    before = {"easy": 1.0, "hard": 0.0, "gone": 0.0}
    after = {"easy": 1.0, "hard": None, "new": 1.0}
    found = gate.decide(compare(before, after, alternative="greater"), "significant", 0.05)
    assert (found.before, found.after, found.n, found.unscored, found.outcome) == (1.0, 1.0, 1, 3, "reject")


def test_the_rounds_share_alpha_and_an_extension_never_doubles_it() -> None:
    assert [gate.spends(0.06, k, 3) for k in (1, 2, 3)] == [pytest.approx(0.02)] * 3
    assert [gate.spends(0.06, k, 3) for k in (4, 6, 7)] == pytest.approx([0.01, 0.01, 0.005])
    assert sum(gate.spends(0.06, k, 3) for k in range(1, 400)) < 0.12
    assert gate.spends(0.05, 1, 0) == 0.05  # a run that was made to be measured only, then extended


def test_the_gate_wears_out_and_more_tasks_last_longer() -> None:
    # By hand: sqrt((5 ln 3 + ln 20) / 200) = sqrt((5.4931 + 2.9957) / 200) = 0.2060.
    assert gate.error_after(5, 100, 0.05) == pytest.approx(0.2060, abs=5e-5)
    assert gate.worn(4, 100, 0.05, 0.2) is None
    said = gate.worn(5, 100, 0.05, 0.2)
    assert said is not None and said.startswith("the 100 gate tasks have decided 5 times")
    assert gate.worn(11, 200, 0.05, 0.2) is None and gate.worn(12, 200, 0.05, 0.2) is not None
    assert gate.worn(0, 2, 0.05, 0.0) is None  # a gate that is off decides nothing and does not wear


def test_what_the_gate_can_show_is_said_at_the_start() -> None:
    said = gate.opening([1.0] * 22 + [0.0] * 178 + [None], "significant", 0.05, 3)
    assert said == (
        "gate (significant): alpha 0.05 over 3 rounds, 0.0167 each; 200 gate tasks: "
        "80 % power to detect +0.11"
    )
    # Strict asks for an interval above zero, so half of the round's alpha: a greater gain.
    strict = gate.opening([1.0] * 22 + [0.0] * 178, "strict", 0.05, 3)
    assert strict is not None and strict.endswith("80 % power to detect +0.12")
    corpus = gate.opening([0.3] * 200, "significant", 0.05, 3, corpus="chrf")
    assert corpus is not None and corpus.endswith(
        "the power for chrf over all of them is not known in advance"
    )
    few = gate.opening([1.0] * 9 + [0.0], "strict", 0.05, 1)
    assert (
        few is not None and "over 1 round, 0.05 each; only 10 gate tasks: too few, or scores too alike" in few
    )
    assert gate.opening([1.0], "off", 0.05, 3) is None and gate.opening([None], "strict", 0.05, 3) is None


def test_a_comparison_without_an_interval_is_put_into_words() -> None:
    one = Comparison(before=0.0, after=1.0, difference=1.0, lo=None, hi=None, level=0.95, p_value=0.5,
                     test="mcnemar-exact", n=1, ties=0, unscored=0)  # fmt: skip
    assert "(paired difference +1.000, p 0.5000)" in gate.decide(one, "significant", 0.05).reason
