"""`selfrefine runs show`: one screen, one task, all figures; as a user types it."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from harness import environment, refused, selfrefine
from hostile import HOSTILE, acting
from made_runs import add_round, answer, end, made, start, write
from rich.console import Console, RenderableType

from selfrefine.records import Message, Task
from selfrefine.reflection.advice import Suggestion
from selfrefine.reflection.diagnosis import Changed, Diagnosis
from selfrefine.reflection.history import history
from selfrefine.report.diagnosed import diagnosed
from selfrefine.report.one_task import task_history_view
from selfrefine.runfolder.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found = made(tmp_path / "runs" / "r", cycle__rounds=1)
    start(found, right=[0])
    add_round(found, right=range(10))
    end(found, right=range(0, 20, 2))
    return found


def test_a_run_is_one_screen_and_the_long_tables_stay_reachable(run: Run, tmp_path: Path) -> None:
    screen = selfrefine("runs", "show", "r", cwd=tmp_path, terminal=True).out.decode()
    assert len(screen.splitlines()) <= 40
    assert "r: ended: 1 rounds done" in screen and "--all" in screen
    assert "trained tokens" not in screen
    every = selfrefine("runs", "show", "r", "--all", cwd=tmp_path).out.decode()
    assert "reward.use" in every and "sampled (40 to measure), 16 trained on" in every


def test_json_has_the_facts_of_before_and_the_new_ones(run: Run, tmp_path: Path) -> None:
    told = selfrefine("runs", "show", "r", "--json", cwd=tmp_path).rows[0]
    assert {"manifest", "rounds", "final", "test_gain"} <= told.keys()
    assert told["test_gain"]["mean"] == pytest.approx(0.45)
    assert told["gain"]["flips"]["became_right"] == 9
    assert told["diagnosis"]["flips"]["became_right"] == 9 and told["learnt"] == {"1": 4}
    assert told["diagnosis"]["suggestion"]["flags"] == ["--rounds", "2"]


def test_a_task_is_named_by_the_beginning_of_its_id(run: Run, tmp_path: Path) -> None:
    rows = selfrefine("runs", "show", "r", "--task", "gate105", cwd=tmp_path).rows
    assert [(row["place"], row["policy"], row["sample"]["text"]) for row in rows] == [
        ("round-000", "start", "7777"),
        ("round-001", "kept", "0"),
    ]
    shown = selfrefine("runs", "show", "r", "--task", "gate105", cwd=tmp_path, terminal=True)
    assert shown.code == 0 and b"this round's candidate, kept" in shown.out
    several = selfrefine("runs", "show", "r", "--task", "gate10", cwd=tmp_path)
    refused(several, 2, "10 tasks of this run begin so: gate100, gate101", "give more of the id")
    none = selfrefine("runs", "show", "r", "--task", "nosuch", cwd=tmp_path)
    refused(none, 2, "no task of this run has an id that begins so", "tasks/gate.jsonl")
    both = selfrefine("runs", "show", "r", "--task", "x", "--all", cwd=tmp_path)
    refused(both, 2, "different things")


def test_states_of_a_run_say_how_to_go_on(tmp_path: Path) -> None:
    new = made(tmp_path / "runs" / "new")
    assert "no committed round yet" in selfrefine("runs", "show", "new", cwd=tmp_path).out.decode()
    start(new)
    interrupted = selfrefine("runs", "show", "new", cwd=tmp_path).out.decode()
    assert "new: interrupted" in interrupted and "selfrefine cycle --run new" in interrupted
    add_round(new, right=[0])
    (new.round(1).file("gate")).unlink()
    damaged = selfrefine("runs", "show", "new", cwd=tmp_path)
    assert damaged.code == 0 and "new: damaged" in damaged.out.decode()
    assert "round-001/gate.jsonl is missing: see `selfrefine runs verify new`" in damaged.out.decode()


def test_without_gate_or_test_tasks_a_run_is_shown_all_the_same(tmp_path: Path) -> None:
    off = made(tmp_path / "runs" / "off", gate=0, test=0, tasks__gate=0, tasks__test=0)
    start(off)
    add_round(off, right=[])
    shown = selfrefine("runs", "show", "off", cwd=tmp_path)
    assert shown.code == 0 and "–" in shown.out.decode(), shown.err


def test_a_screen_loads_neither_a_model_nor_scipy(run: Run, tmp_path: Path) -> None:
    """Each takes longer than all that is shown: 100,000 rows are to be shown within a second."""
    code = (
        "import sys; from selfrefine.cli import app\n"
        "try: app(['runs', 'show', 'r'])\n"
        "except SystemExit: pass\n"
        "bad = [m for m in ('torch', 'scipy', 'jinja2', 'sacrebleu') if m in sys.modules]\n"
        "print('loaded:', bad, file=sys.stderr)"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert "became right" in done.stdout and "loaded: []" in done.stderr, done.stderr


def shown(*parts: RenderableType) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None, legacy_windows=False)
    for part in parts:
        console.print(part, crop=False)
    return out.getvalue()


@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_of_an_answer_acts(what: str, tmp_path: Path) -> None:
    bad = HOSTILE[what]
    found = Diagnosis(
        round=1,
        outcome="reject",
        trained={bad: 0.5},
        examples=(
            Changed(task_id=bad, prompt=bad, before=bad, after=bad, before_reward=1.0, after_reward=None),
        ),
        suggestion=Suggestion(kind="another-run", why=bad, flags=(bad,)),
    )
    assert acting(shown(*diagnosed(found, "r"))) == []
    run = made(tmp_path / "runs" / "r")
    start(run)
    of = Task(id=bad[:200], prompt=(Message(role="user", content=bad),), tags={bad[:99]: bad})
    draft = answer(of, 0.0, 1, text=bad)
    write(run, 1, "generate", [draft, answer(of, 1.0, 1, 1, text=bad + "!", parent_id=draft.id)])
    seen = history(run, "train", of)
    assert len(seen) == 2 and seen[0].sample.text == bad
    assert acting(shown(task_history_view("train", of, seen))) == []


def test_tags_and_names_of_a_hostile_run_do_not_act(tmp_path: Path) -> None:
    few = list(HOSTILE.values())[:2]
    tasks = [
        Task(
            id=f"{few[i % 2]}{i}", prompt=(Message(role="user", content=f"?{i}"),), tags={few[0]: few[i % 2]}
        )
        for i in range(20)
    ]
    other = made(tmp_path / "runs" / "r", tasks__source=HOSTILE["a link"])
    splits = {"train": other.tasks("train"), "gate": tasks, "test": []}
    hostile = Run.create(tmp_path / "runs" / "h", other.manifest, splits, {})
    hostile.events.append("cycle")
    start(hostile)
    add_round(hostile, right=range(20))
    hostile.events.append("alarm", round=1, stage=few[0], alarm=few[1], value=1, limit=0, reason=few[0])
    screen = selfrefine("runs", "show", "h", cwd=tmp_path, terminal=True)
    assert screen.code == 0, screen.err
    assert acting(screen.out.decode(), lively=True) == []
    assert "by tag" in screen.out.decode() and "became right" in screen.out.decode()
