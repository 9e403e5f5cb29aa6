"""The page of the judges' calibration: its figures by hand, and what people wrote stays."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import calibration  # noqa: E402
from selfrefine.records import Message, Reward, Sample, Task  # noqa: E402


def answer(task: str, right: float | None, p_true: float | None, rank: float | None) -> Sample:
    asked = Task(id=task, prompt=(Message(role="user", content="?"),))
    values = {"gym": right, "p-true": p_true, "critic": p_true, "rank-critic": rank}
    return Sample(id="s", task=asked, rewards=tuple(Reward(name=k, value=v) for k, v in values.items()))


def test_judges_are_compared_within_a_task() -> None:
    """Task a: p-true puts the right answer (0.3) above one of two wrong ones: 1/2, rank-critic above both: 1.
    Task b is all right and tells nothing. Over all answers the right ones are 0.3, 0.9, 0.9 against 0.1, 0.6:
    5 of 6. Partly right (0.5) is wrong; an answer that could not be scored is in no figure."""
    windows = [
        [answer("a", 1.0, 0.3, 0.8), answer("a", 0.0, 0.1, 0.2), answer("a", 0.5, 0.6, 0.5)],
        [answer("b", 1.0, 0.9, None), answer("b", 1.0, 0.9, None), answer("b", None, 0.9, None)],
    ]
    found = calibration.measured("gcd", windows)
    own = found.chances["p-true"]
    assert (found.tasks, own.n, own.unknown) == (2, 5, 1)
    assert own.right_rate == pytest.approx(3 / 5)
    assert own.auc == pytest.approx(5 / 6)
    assert {name: (one.mean, one.n) for name, one in found.apart.items()} == {
        "p-true": (0.5, 1),
        "critic": (0.5, 1),
        "rank-critic": (1.0, 1),
    }
    page = calibration.table([found], "m", "policy", 0)
    assert "| gcd (2) | 5 | 0.600 | p-true | 0.560 |" in page
    assert "| gcd (2) | 5 | 0.600 | rank-critic | – | – | – | 1 | 1.000" in page
    # 0.1, 0.3, 0.6 and twice 0.9, of which the second and the last two are right
    assert "| gcd | 0.000 (1) | – | 1.000 (1) | – | – | 0.000 (1) | – | – | 1.000 (2) | – |" in page


def test_only_what_is_between_the_markers_is_made_anew() -> None:
    begun = calibration.page("# Title\n\nWritten.\n", "first\n")
    assert begun.startswith("# Title\n\nWritten.\n") and "first" in begun
    again = calibration.page(begun + "\nMore.\n", "second\n")
    assert again == begun.replace("first", "second") + "\nMore.\n"


def test_each_family_has_tasks_of_its_own() -> None:
    for family in (*calibration.FAMILIES, calibration.DEMO):
        assert len(calibration.tasks_of(family, 3, 1)) == 3
    [demo] = calibration.tasks_of("demo", 1, 0)
    assert demo.prompt[-1].content.endswith("Answer with just the number.")
