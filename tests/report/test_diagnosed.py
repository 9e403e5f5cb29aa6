"""A round's diagnosis, a run's screen and a task's history as a person reads them."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from made_runs import add_round, criticised, end, made, start, write
from msgspec.structs import replace
from rich.console import Console, RenderableType

from selfrefine.records import Message, Task
from selfrefine.reflection.advice import Suggestion
from selfrefine.reflection.changes import TagGain
from selfrefine.reflection.diagnosis import Diagnosis, diagnosis
from selfrefine.reflection.findings import Cell, Weaknesses
from selfrefine.reflection.history import find_tasks, history
from selfrefine.reflection.overview import overview
from selfrefine.report.diagnosed import diagnosed, shown_rounds, tag_gains
from selfrefine.report.one_task import marked, task_history_view
from selfrefine.report.overview import overview_view, picture, sparkline
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import Guard
from selfrefine.stats import Difference, Interval


def shown(*parts: RenderableType, width: int = 80) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    for part in parts:
        console.print(part, crop=False)
    return out.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Kept, rolled back, undecided; ended."""
    found = made(tmp_path / "runs" / "r", cycle__rounds=3)
    start(found, right=[0])
    add_round(found, right=range(10))
    warned = Guard(
        name="length", value=9.0, state="warn", reason="length: tokens per answer changed 3.0-fold"
    )
    add_round(found, right=range(5), outcome="reject", guards=[warned])
    add_round(found, right=range(11), outcome="undecided")
    end(found, right=range(0, 20, 2))
    return found


def test_after_a_rollback_the_rejected_answers_stand_beside_the_accepted_ones(run: Run) -> None:
    told = shown(*diagnosed(diagnosis(run, 2), "r"))
    lines = [words(line) for line in told.splitlines()]
    at = lines.index("105 - 105 = ?")
    assert lines[at + 1 : at + 3] == ["accepted right 0", "rejected wrong 7777"]
    # A kept round has flips, too; its answers are in `runs show --task`.
    assert "accepted right" not in words(shown(*diagnosed(diagnosis(run, 1), "r")))


def test_a_diagnosis_says_what_was_learnt_by_which_name(run: Run) -> None:
    told = words(shown(*diagnosed(diagnosis(run, 1), "r")))
    assert "8 answers to 4 prompts, 2 cut off, 1 of 4 groups without spread" in told
    assert "in training numeric 0.500; on gate tasks numeric 0.500" in told
    assert "4 answers of 4 prompts, 4 of them pass numeric, 1 step" in told
    assert "9 became right, 0 became wrong, of 20 gate tasks" in told


def test_a_loss_that_rises_is_explained() -> None:
    told = shown(*diagnosed(Diagnosis(round=1, loss_early=0.313, loss_late=0.49), "r"))
    assert "0.313 → 0.490" in words(told) and "it did not fall" in words(told)
    fell = shown(*diagnosed(Diagnosis(round=1, loss_early=0.49, loss_late=0.313), "r"))
    assert "it did not fall" not in words(fell)


def test_what_to_type_is_never_broken() -> None:
    """A line break within it would end the command when it is pasted."""
    said = Suggestion(kind="continue", why="round 3 still gained", flags=("--rounds", "4"))
    told = shown(*diagnosed(Diagnosis(round=3, suggestion=said), "a-rather-long-name-of-a-run"), width=40)
    assert "selfrefine cycle --run a-rather-long-name-of-a-run --rounds 4\n" in told
    quoted = Suggestion(kind="another-run", why="x", flags=("-r", "my file.py:f; rm"))
    assert "-r 'my file.py:f; rm'" in shown(*diagnosed(Diagnosis(round=3, suggestion=quoted), "r"))


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_run_fits_its_screen(run: Run, width: int) -> None:
    told = shown(overview_view(run.manifest, overview(run), "r"), width=width)
    lines = told.splitlines()
    commands = [line for line in lines if "selfrefine " in line]
    assert all(len(line) <= width for line in lines if line not in commands)
    assert "…" not in told
    if width == 80:
        assert len(lines) <= 40
    for said in ("kept, p .0010", "rolled back", "not better", "undecided, p .4000"):
        assert all(word in words(told) for word in said.split()), (said, told)
    assert "0.500" in told and "[0.299, 0.701]" in told  # Wilson's of 10 of 20


def test_a_run_says_its_gain_by_tag_and_what_rang(run: Run) -> None:
    run.events.append("alarm", round=1, stage="generate", alarm="truncated", value=0.6, limit=0.5)
    run.events.append("alarm", round=2, stage="generate", alarm="truncated", value=0.7, limit=0.5)
    told = words(shown(overview_view(run.manifest, overview(run), "r"), width=120))
    assert "9 became right, 0 became wrong, of 20 test tasks" in told
    assert "sign = +: 0.100 → 1.000, +0.900" in told and "sign = -: 0.000 → 0.000" in told
    assert "rounds 1, 2 generate: truncated 0.7 (limit 0.5)" in told
    assert "round 2 guard: length: tokens per answer changed 3.0-fold" in told
    assert "selfrefine cycle --run r --rounds 4" in told
    assert "1* 0.500" in told  # the accepted policy


def test_a_weak_slice_has_the_figures_of_the_split_that_shows_it_and_the_last_reflection_counts(
    run: Run,
) -> None:
    """Traps: a slice weak in training only, with the gate's harmless figures; a plan's weaknesses shown where
    `reflect RUN` looked again after the same round."""
    weak = Cell(name="op = -", by="tag", n=30, rate=0.1, rest=0.9, q_value=0.001)
    harmless = replace(weak, n=8, rate=0.5, rest=0.6, q_value=0.7)
    first = Weaknesses(after_round=1, heaviest=("digits >= 2",), looked_at=9)
    again = Weaknesses(after_round=1, gate=(harmless,), train=(weak,), heaviest=("op = -",), looked_at=9)
    for place, found in ((run.round(2).path, first), (run.path / "reflection", again)):
        place.mkdir(exist_ok=True)
        (place / "weaknesses.json").write_bytes(msgspec.json.encode(found))
    told = words(shown(overview_view(run.manifest, overview(run), "r")))
    assert "weak op = -: 0.100 against 0.900 elsewhere, 30 tasks" in told and "digits" not in told


def test_intervals_by_tag_are_said_to_hold_one_by_one_where_there_are_several() -> None:
    """Trap: a round's `improved` is corrected for their number, and the gain at the end looks the same."""
    gain = Difference(mean=0.3, lo=0.1, hi=0.5, n=9)
    one = TagGain(tag="op", value="+", tasks=9, before=0.1, after=0.4, gain=gain)
    (alone,) = tag_gains([one])
    assert alone == ("by tag", "op = +: 0.100 → 0.400, +0.300 [+0.100, +0.500], 9 tasks")
    assert "not corrected" in [said for _, said in tag_gains([one, replace(one, value="-")])][-1]


def test_weaknesses_are_named_where_a_reflection_found_some(run: Run) -> None:
    cell = Cell(name="op = -", by="tag", n=10, rate=0.1, rest=0.9, q_value=0.01)
    early = Weaknesses(after_round=1, heaviest=("earlier",), looked_at=3)
    late = Weaknesses(after_round=3, gate=(cell,), heaviest=("op = -",), looked_at=40)
    for place, found in ((run.round(1).path, early), (run.path / "reflection", late)):
        place.mkdir(exist_ok=True)
        (place / "weaknesses.json").write_bytes(msgspec.json.encode(found))
    told = words(shown(overview_view(run.manifest, overview(run), "r")))
    assert "weak op = -: 0.100 against 0.900 elsewhere, 10 tasks" in told and "earlier" not in told
    (run.path / "reflection" / "weaknesses.json").write_bytes(b"{")
    damaged = words(shown(overview_view(run.manifest, overview(run), "r")))
    assert "weaknesses.json is damaged" in damaged and "0.500" in damaged


def test_a_run_that_kept_nothing_claims_no_gain(tmp_path: Path) -> None:
    run = made(tmp_path / "runs" / "r")
    start(run, right=[0])
    add_round(run, right=[], outcome="reject")
    end(run, right=[0])
    told = words(shown(overview_view(run.manifest, overview(run), "r")))
    assert "gain none: no round was kept" in told and "became right" not in told


def test_of_many_rounds_the_first_and_the_last_are_shown() -> None:
    assert shown_rounds(5, 12) == ([0, 1, 2, 3, 4], 0)
    kept, hidden = shown_rounds(30, 12)
    # Twelve lines: the first, one that says that 19 are hidden, and the last ten.
    assert (kept[0], kept[1], kept[-1], len(kept), hidden) == (0, 20, 29, 11, 19)


def test_a_score_is_drawn_where_it_stands() -> None:
    # On an axis of 12 cells from 0 to 1.1 a cell is 0.1: the mean in cell 5, its interval from 3 to 8.
    score = Interval(mean=0.5, lo=0.3, hi=0.8, n=10)
    assert picture(score, 0.0, 1.1) == "   ├─●──┤"
    assert picture(Interval(mean=0.5, lo=None, hi=None, n=3), 0.0, 1.1) == "     ●"
    assert picture(None, 0.0, 1.1) == ""
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█" and sparkline([0.2, 0.2]) == "▁▁"


def test_a_revision_is_shown_as_a_diff_in_marks_or_in_colour(tmp_path: Path) -> None:
    run = made(tmp_path / "runs" / "r")
    start(run)
    of = run.tasks("train")[0]
    rows = criticised(of, 1, "The sum is 7", "The sum is 0")
    write(run, 1, "generate", rows[:1])
    write(run, 1, "critique", rows)
    split, task = find_tasks(run, "train00")[0]
    out = io.StringIO()
    plain = Console(file=out, width=80, no_color=True, force_terminal=False)
    plain.print(task_history_view(split, task, history(run, split, task)))
    lines = [words(line) for line in out.getvalue().splitlines()]
    at = lines.index("The sum is 7")
    assert lines[at - 1] == "wrong answer 0 · numeric 0.000"
    assert lines[at + 1] == "critique (revise): Add the tens again."
    assert lines[at + 2] == "right revision · numeric 1.000"
    assert lines[at + 3] == "The sum is [-7-]{+0+}"
    coloured = marked("The sum is 7", "The sum is 0", coloured=True)
    assert coloured.plain == "The sum is 70" and {str(s.style) for s in coloured.spans} == {
        "red strike",
        "green underline",
    }
    # Said once: the revision inherits its draft's critique.
    assert out.getvalue().count("Add the tens again") == 1


def test_one_task_is_followed_through_all_rounds(run: Run) -> None:
    split, task = find_tasks(run, "gate105")[0]
    seen = history(run, split, task)
    assert [(one.place, one.policy, one.sample.reward) for one in seen] == [
        ("round-000", "start", 0.0),
        ("round-001", "kept", 1.0),
        ("round-002", "rolled back", 0.0),
        ("round-003", "undecided", 1.0),
    ]
    split, task = find_tasks(run, "train00")[0]
    learnt = [(one.round, one.sample.index, one.learnt) for one in history(run, split, task)]
    assert learnt == [(k, s, s == 1) for k in (1, 2, 3) for s in (0, 1)]
    split, task = find_tasks(run, "test200")[0]
    assert [one.policy for one in history(run, split, task)] == ["start", "accepted"]


def test_a_whole_id_is_meant_before_the_ids_that_begin_so(tmp_path: Path) -> None:
    ids = ["a", "ab", 'q"\\\n']
    tasks = [Task(id=one, prompt=(Message(role="user", content=one),)) for one in ids]
    run = Run.create(tmp_path / "r", made(tmp_path / "other").manifest, {"gate": tasks}, {})
    assert [task.id for _, task in find_tasks(run, "a")] == ["a"]
    assert [task.id for _, task in find_tasks(run, 'q"')] == ['q"\\\n']  # as JSON it is written otherwise
    assert find_tasks(run, "b") == []  # no beginning
