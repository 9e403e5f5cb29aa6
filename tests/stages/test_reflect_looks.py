"""What a reflection looks at, in a run and as a filter, and what it never does: the test split, a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from harness import refused, selfrefine
from planning import SETTINGS, make_folder, work

from selfrefine.runfolder import audit
from selfrefine.stages import cycle as loop
from selfrefine.stages.reflect import reflect


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_folder(tmp_path, monkeypatch)


def test_the_test_split_is_never_looked_at(folder: Path) -> None:
    """Its rows are made right, and then broken and removed: the same bytes come out."""
    made = work(folder, "r", "reflect.plan=auto", "cycle.rounds=1")
    loop.cycle(made)
    shutil.copytree(made.run.path, folder / "runs/poisoned", symlinks=True)
    for path in (folder / "runs/poisoned").rglob("test.jsonl"):
        if "tasks" in path.parts:
            path.unlink()
        else:
            path.write_text("this is no row\n")
    for name in ("r", "poisoned"):
        done = selfrefine("reflect", name, "--no-causes", cwd=folder)
        assert done.code == 0, done.err
        again = work(folder, name, "reflect.plan=auto", "cycle.rounds=1")
        reflect(again, 2)
    for name in ("weaknesses.json", "causes.md", "plan.json"):
        for place in ("reflection", "round-002"):
            one, other = (folder / "runs" / run / place / name for run in ("r", "poisoned"))
            assert one.read_bytes() == other.read_bytes(), name


def test_reflect_looks_at_any_run_without_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = work(folder, "r")
    monkeypatch.setattr("selfrefine.cli.common.load", lambda *_, **__: pytest.fail("a model was loaded"))
    new = selfrefine("reflect", "r", "--no-causes", cwd=folder)
    assert new.code == 0 and new.rows[0]["weaknesses"]["notes"], new.err
    loop.baseline(made)
    before = {p: p.read_bytes() for p in (made.run.path / "round-000").iterdir()}
    done = selfrefine("reflect", "r", "--no-causes", cwd=folder)
    assert done.code == 0, done.err
    (told,) = done.rows
    assert told["weaknesses"]["heaviest"] == ['word "-"']
    assert told["plan"]["mode"] == "suggest" and told["plan"]["round"] == 1
    assert before == {p: p.read_bytes() for p in (made.run.path / "round-000").iterdir()}
    kept = json.loads((made.run.path / "reflection/plan.json").read_text())
    assert kept["actions"][0]["kind"] == "reweight"
    refused(selfrefine("reflect", "r", "--min-reward", "0.5", cwd=folder), 2, "its own settings")
    shown = selfrefine("reflect", "runs/r", "--no-causes", cwd=folder, terminal=True)
    assert b"weakness" in shown.out and b'reweight: `word "-"` is at 0.000' in shown.out
    assert audit.verify(made.run) == []
    (made.run.path / "reflection/plan.json").write_text("{")
    assert any("reflection/plan.json" in line for line in audit.verify(made.run))
    refused(selfrefine("reflect", "nothing", cwd=folder), 5, "no run 'nothing'")


def test_as_a_filter_it_takes_scored_samples(folder: Path) -> None:
    samples = selfrefine("generate", "tasks.jsonl", "--model", "scripted:script.jsonl", "-n", "2", cwd=folder)
    refused(
        selfrefine("reflect", stdin=samples.out, cwd=folder), 4, "no row has a reward", "selfrefine reward"
    )
    scored = selfrefine("reward", "-r", "numeric", stdin=samples.out, cwd=folder)
    for vain in ("--no-causes", "--model=smollm2"):  # ignored, they would look as if they had done something
        refused(selfrefine("reflect", vain, stdin=scored.out, cwd=folder), 2, "reflect on rows takes no")
    done = selfrefine("reflect", stdin=scored.out, cwd=folder)
    assert done.code == 0 and len(done.rows) == 1, done.err
    (told,) = done.rows
    assert told["samples"] == 296 and told["weaknesses"]["heaviest"][0] == 'word "-"'
    never = next(cell for cell in told["weaknesses"]["train"] if cell["name"] == "never right")
    assert never["n"] >= 74  # every subtraction


def test_a_dry_run_counts_what_a_plan_may_sample(folder: Path) -> None:
    """By hand: 24 tasks x 2 samples x 4 times x 8 tokens, rationalised 24 x 3 x 8, tried 48 x 2 x 8, and the
    gate's 40 x 8."""
    words = [word for text in SETTINGS for word in ("--set", text)]
    command = ["cycle", "--dry-run", "--model", "scripted:script.jsonl", *words]
    plain, planned = selfrefine(*command, cwd=folder), selfrefine(*command, "--plan", "auto", cwd=folder)
    assert b"at most 704 per round" in plain.out  # 384 + 320
    assert b"at most 3,200 per round" in planned.out and b"up to 4 times as many by plan" in planned.out
    refused(selfrefine("cycle", "--plan", "always", cwd=folder), 3, "reflect.plan", "auto, off, suggest")


def test_a_hostile_tag_stays_text_on_a_terminal(folder: Path) -> None:
    """Tags and words of tasks become names of weaknesses, in the table and in what is said."""
    evil = "\x1b]0;owned\x07-\u202e"
    lines = [
        {"id": f"t{i}.r0.s0", "text": "8", "reward": float(i % 2)}
        | {"task": {"id": f"t{i}", "prompt": [], "tags": {"op": evil if i % 2 == 0 else "+"}}}
        for i in range(40)
    ]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    shown = selfrefine("reflect", stdin=data, cwd=folder, terminal=True)
    assert shown.code == 0, shown.err
    printed = shown.out.decode()
    assert "owned" in printed  # it is the first weakness, by a harmless name
    for byte in ("\x1b]", "\x07", "\u202e"):
        assert byte not in printed and byte not in shown.err
