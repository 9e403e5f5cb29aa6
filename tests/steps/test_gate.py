"""The gate keeps what is measured better on the same tasks, and nothing else."""

from __future__ import annotations

from selfrefine.steps.gate import decide


def test_better_is_kept_and_not_better_is_rolled_back() -> None:
    before = {"a": 0.0, "b": 0.0, "c": 1.0, "d": 0.0}
    better = decide(before, before | {"a": 1.0}, "better", seed=0)
    assert (better.accepted, better.before, better.after, better.n) == (True, 0.25, 0.5, 4)
    assert better.reason.startswith("kept: 0.250 → 0.500 on 4 gate tasks (paired difference +0.250 [")
    for after in (before, before | {"c": 0.0}):
        worse = decide(before, after, "better", seed=0)
        assert not worse.accepted and worse.reason.startswith("rolled back: ")


def test_only_tasks_scored_under_both_policies_count() -> None:
    """A candidate whose hard tasks could not be scored must not win by leaving them out."""
    before = {"easy": 1.0, "hard": 0.0, "gone": 0.0}
    after = {"easy": 1.0, "hard": None, "new": 1.0}
    found = decide(before, after, "better", seed=0)
    assert (found.before, found.after, found.n, found.accepted) == (1.0, 1.0, 1, False)


def test_nothing_to_compare_is_no_reason_to_keep() -> None:
    found = decide({"a": None}, {"a": 1.0}, "better", seed=0)
    assert (found.accepted, found.before, found.after, found.n) == (False, None, None, 0)
    assert "no gate task was scored" in found.reason


def test_the_gate_can_be_off_and_says_so() -> None:
    found = decide({"a": 1.0}, {"a": 0.0}, "off", seed=0)
    assert found.accepted and found.reason.endswith("not better, but the gate is off")
    assert decide({}, {}, "off", seed=0).accepted


def test_a_missing_zero_is_a_zero() -> None:
    """`if before` instead of `is not None` would drop every task answered wrongly before."""
    assert decide({"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 1.0}, "better", seed=0).n == 2
