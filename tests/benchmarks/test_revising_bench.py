"""Does revising pay: variants differ in what is varied only, and who may ask the rewards is told of."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import covered, revising_runs  # noqa: E402
from benchmarks.pages import markers  # noqa: E402
from benchmarks.revising_page import MARK, page  # noqa: E402
from benchmarks.revising_runs import CONTROLS, HERE, SEEDS, VARIANTS, Runs, Told, kept, kept_best, together  # noqa: E402
from benchmarks.worked import check, check_again, worked  # noqa: E402
from selfrefine.records import Message, Reward, Sample, Task  # noqa: E402

BEGIN, END = markers(MARK)


def test_variants_differ_in_corrections_and_temperature_only(tmp_path: Path) -> None:
    runs = Runs(folder=tmp_path)
    words = {name: runs.command(f"words-{name}", 11) for name in VARIANTS}
    for name, command in words.items():
        own = set(command) - set(words["samples"])
        critic = {f"critique.source={CONTROLS['words']}"} if name == "again" else set()
        assert own <= {*VARIANTS[name], *critic, str(runs.path(f"words-{name}", 11))}
        assert f"adapter={runs.path('words-start', 11) / 'adapter'}" in command
    # The start's tasks are not learnt from twice.
    start = runs.command("words-start", 11)
    assert start[start.index("--seed") + 1] == "11"
    assert words["near"][words["near"].index("--seed") + 1] == "111"
    assert runs.jobs[0] == ("words-start", 10)
    assert ("words-fault", 10) in runs.jobs and ("sums-fault", 10) in runs.jobs
    # `again` differs in where its critic says that the fault begins.
    fault, again = (runs.command(f"sums-{name}", 12) for name in ("fault", "again"))
    assert [word for word in again if word not in fault] == [
        str(runs.path("sums-again", 12)),
        f"critique.source={HERE / 'worked.py'}:check_again",
    ]


def test_the_control_on_words_says_what_the_rewards_say_and_keeps_nothing() -> None:
    """The trap: a control with another measure of right stops elsewhere, and compares nothing."""
    task = Task(id="t", prompt=(Message(role="user", content="?"),), meta={"concepts": ["dog", "ball"]})
    found = [
        covered.check_again(Sample(id="s", task=task, text=text))
        for text in ("A dog has a ball.", "A dog barks.", "A dog, a ball.")
    ]
    assert [(one.value, one.detail) for one in found] == [
        (1.0, None),
        (0.5, "missing concepts: ball"),
        (0.0, "no finite verb"),
    ]
    assert [one.keep for one in found if one.value != 1.0] == [0, 0]


def test_no_seed_is_asked_a_sum_of_another_or_of_those_that_the_start_was_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap: three draws from one pool are not three tests."""
    monkeypatch.setattr(revising_runs, "N_SUMS", 20)
    monkeypatch.setattr(revising_runs, "SHOWN", 10)
    Runs(folder=tmp_path).write_tasks()
    files = sorted(tmp_path.glob("*.jsonl"))
    assert [file.name for file in files] == ["shown.jsonl", *(f"sums-{seed}.jsonl" for seed in SEEDS)]
    asked = [re.findall(r"What is [^?]+", file.read_text(encoding="utf-8")) for file in files]
    assert [len(own) for own in asked] == [10, 20, 20, 20]
    assert len({question for own in asked for question in own}) == 70


def test_the_page_names_no_folder_of_the_machine_it_was_made_on(tmp_path: Path) -> None:
    assert str(ROOT) not in page(Runs(folder=tmp_path), "")


def test_the_better_of_draft_and_revision_stands_against_the_better_of_draft_and_fresh_sample() -> None:
    """Task a: draft 0.5, revision 1.0, fresh 0.0 and 1.0: kept 1.0 against (0.5 + 1.0) / 2. Task b: draft
    0.5, revision 0.25, fresh 1.0: kept 0.5 against 1.0. Together 0.75 against 0.875."""
    found = kept({"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 0.25}, {"a": [0.0, 1.0], "b": [1.0]})
    assert (found.revision, found.fresh) == (0.75, 0.875)
    assert found.revision_minus_fresh.mean == pytest.approx(-0.125)


def test_what_is_kept_stands_beside_the_samples_that_are_best_to_keep_from() -> None:
    """The trap: greedy samples have the better mean, 0.5, and are the draft again: the better of the two is
    0.5. Samples of 0 and 0.9 have a mean of 0.45, and the better ones (0.5 + 0.9) / 2."""
    greedy, warm = {"a": [0.5]}, {"a": [0.0, 0.9]}
    found = kept_best({"a": 0.5}, {"a": 0.75}, [greedy, warm])
    assert found.fresh == pytest.approx(0.7)
    assert found.revision_minus_fresh.mean == pytest.approx(0.05)
    assert kept_best({}, {}, [{}, {}]).fresh is None


def test_tasks_of_several_seeds_are_told_apart() -> None:
    def one(**changes: float) -> Told:
        return Told(summary=None, kept=None, changes=changes)  # type: ignore[arg-type]

    difference, over = together([one(a=1.0, b=0.0), one(a=0.0, b=0.0)])
    assert (difference.mean, difference.n) == (0.25, 4)
    assert over[0] is not None
    assert together([one(a=1.0)])[1] == (None, None)


def test_the_calculator_names_the_first_wrong_step_and_never_its_result() -> None:
    """9 + 9 = 18; 18 + 0 = 18; 18 - 5 = 13."""
    given = Task(id="a", prompt=(Message(role="user", content="… problem: 9 + 9 + 0 - 5 ="),))
    task = worked(given)
    assert task.references == ("9 + 9 = 18; 18 + 0 = 18; 18 - 5 = 13",)

    def found(text: str) -> Reward:
        return check(Sample(id="a.0", task=task, text=text))

    def said(text: str) -> str:
        return found(text).detail or ""

    assert found(task.references[0]) == Reward(name="steps", value=1.0)
    assert said("9 + 9 = 18; 18 + 0 = 18; 18 - 5 = 12") == "step 3 is wrong: 18 - 5 is not 12"
    assert said("9 + 9 = 19; 19 + 0 = 19; 19 - 5 = 14") == "step 1 is wrong: 9 + 9 is not 19"
    assert said("9 + 9 = 18; 18 - 5 = 13") == "step 2 must be 18 + 0"
    assert said("9 + 9 = 18") == "step 2 is missing: 18 + 0"
    assert said(f"{task.references[0]}; 13 + 1 = 14") == "there must be 3 steps"
    # What stands before the fault: the operands are right, or they are not.
    for text, before in (
        ("9 + 9 = 19; 19 + 0", "9 + 9 = "),
        ("9 + 9 = 18; 17 + 0 = 17", "9 + 9 = 18; "),
        ("9 + 9 = 18, and so on", "9 + 9 = 18"),
        ("It is 13.", ""),
    ):
        assert found(text).keep == len(before)
    again = check_again(Sample(id="a.0", task=task, text="9 + 9 = 19; 19 + 0"))
    assert (again.detail, again.keep) == ("step 1 is wrong: 9 + 9 is not 19", 0)
    with pytest.raises(ValueError, match="sum"):
        check(Sample(id="b.0", task=Task(id="b", prompt=(Message(role="user", content="Hello"),)), text="2"))


def test_what_a_person_wrote_on_the_page_is_kept(tmp_path: Path) -> None:
    old = f"# Title\n\nBefore.\n\n{BEGIN}\nold figures\n{END}\n\nAfter.\n"
    new = page(Runs(folder=tmp_path), old)
    assert new.startswith("# Title\n\nBefore.\n\n" + BEGIN) and new.endswith(f"{END}\n\nAfter.\n")
    assert "old figures" not in new and page(Runs(folder=tmp_path), new) == new
