"""Plan on against plan off: both sides get the same, seeds count as what they are, written words stay."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import mixture  # noqa: E402
from benchmarks.pages import markers  # noqa: E402
from benchmarks.reflection_page import MARK, page  # noqa: E402
from benchmarks.reflection_runs import Runs, over_seeds  # noqa: E402
from selfrefine.tasks import TaskOptions, load  # noqa: E402
from selfrefine.tasks.splits import split  # noqa: E402

BEGIN, END = markers(MARK)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(folder=tmp_path, tasks=tmp_path / "mixture.jsonl", demo_seeds=(5,))


def test_both_arms_are_asked_for_the_same_but_for_the_plan(runs: Runs) -> None:
    """A budget or a recipe that only one side gets would be the difference that is measured."""
    for task, seed in (("mixture", 2), ("demo", 5)):
        off, on = (runs.command(f"{task}-{arm}", seed) for arm in ("off", "on"))
        differing = [(a, b) for a, b in zip(off, on, strict=True) if a != b]
        assert differing == [
            (str(runs.path(f"{task}-off", seed)), str(runs.path(f"{task}-on", seed))),
            ("off", "auto"),
        ]
    assert runs.jobs[:2] == [("mixture-off", 0), ("mixture-on", 0)]
    assert len(runs.jobs) == 8


def test_the_interval_over_seeds_is_wider_than_that_over_tasks() -> None:
    """Two seeds, +1 on every task and 0 on every task: tasks alone would say 0.5 with hardly any doubt. Both
    seeds drawn are the first with probability 1/4, so the interval reaches from 0 to 1."""
    assert over_seeds([[1.0] * 50, [0.0] * 50]) == (0.0, 1.0)
    assert over_seeds([[0.25] * 8, [0.25] * 8, [0.25] * 8]) == (0.25, 0.25)
    assert over_seeds([[1.0, 0.0]]) == (None, None)


def test_what_a_person_wrote_on_the_page_is_kept(runs: Runs) -> None:
    old = f"# Title\n\nTried by hand.\n\n{BEGIN}\nold figures\n{END}\n\nAfter.\n"
    new = page(runs, old)
    assert new.startswith("# Title\n\nTried by hand.\n\n" + BEGIN)
    assert new.endswith(f"{END}\n\nAfter.\n")
    assert "old figures" not in new
    assert "Finished runs: 0 of 8." in new
    assert page(runs, new) == new


def test_every_split_of_the_mixture_holds_its_datasets_in_proportion(tmp_path: Path) -> None:
    """Splits are stratified by `difficulty` alone, and two datasets share the value "": a test split with
    more of an easy dataset than the gate would make the two incomparable."""
    file = tmp_path / "mixture.jsonl"
    written = mixture.write(file)
    tasks = list(load(str(file), TaskOptions()))
    assert len(tasks) == written
    names = {task.tags["dataset"] for task in tasks}
    assert names == {part.dataset for part in mixture.PARTS}
    assert len(names) >= 4
    parts = split(tasks, 1, 80, 240)
    for name in names:
        share = sum(task.tags["dataset"] == name for task in tasks) / len(tasks)
        for tasks_of in (parts.gate, parts.test):
            held = sum(task.tags["dataset"] == name for task in tasks_of) / len(tasks_of)
            assert held == pytest.approx(share, abs=0.04)
    again = tmp_path / "again.jsonl"
    mixture.write(again)
    assert again.read_bytes() == file.read_bytes()
