"""`runs gc` and `runs rm`: what they delete, what never, and what is left when they are killed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest
from harness import refused, selfrefine, tree
from made import make, manifest

from selfrefine.runfolder.collected import remove
from selfrefine.runfolder.run import Run

REJECTED = "runs/r/round-002/adapter/adapter_model.safetensors"


def gc(folder: Path, *words: str) -> list[str]:
    done = selfrefine("runs", "gc", *words, cwd=folder)
    assert done.code == 0, done.err
    return [row["path"] for row in done.rows]


def test_gc_says_first_what_it_would_delete(mine: Path) -> None:
    before = tree(mine)
    found = selfrefine("runs", "gc", cwd=mine)
    assert [(row["path"], row["bytes"], row["deleted"]) for row in found.rows] == [
        ("runs/r/round-002/adapter", 2, False)
    ]
    assert tree(mine) == before and "selfrefine runs gc --yes" in found.err
    on_screen = selfrefine("runs", "gc", "r", cwd=mine, terminal=True)
    assert "would delete runs/r/round-002/adapter (2 B): adapter that round 2 rejected" in on_screen.err


def test_a_collected_adapter_is_no_damage_and_a_missing_one_still_is(mine: Path) -> None:
    """Trap: round.json goes on naming the file, and `runs ls` and `verify` would call the run damaged."""
    before = {p: (mine / p).read_bytes() for p in tree(mine) if "round-" in p and (mine / p).is_file()}
    assert gc(mine, "--yes") == ["runs/r/round-002/adapter"]
    assert not (mine / REJECTED).parent.exists()
    for path, data in before.items():  # nothing else in a committed round was touched
        assert path == REJECTED or (mine / path).read_bytes() == data
    verified = selfrefine("runs", "verify", "r", cwd=mine)
    assert verified.code == 0 and "collected: 1 file of rejected adapters" in verified.err
    assert selfrefine("runs", "ls", cwd=mine).rows[0]["problem"] is None
    Run.open(mine / "runs/r").check_whole()  # what `cycle` asks before it goes on
    assert gc(mine, "--yes") == []
    shutil.rmtree(mine / "runs/r/round-001/adapter")
    damaged = selfrefine("runs", "verify", "r", cwd=mine)
    assert damaged.code == 5 and "round-001/adapter/adapter_model.safetensors: missing" in damaged.err


def test_an_adapter_that_is_put_back_changed_is_named(mine: Path) -> None:
    gc(mine, "--yes")
    (mine / REJECTED).parent.mkdir()
    (mine / REJECTED).write_bytes(b"another")
    verified = selfrefine("runs", "verify", "r", cwd=mine)
    assert verified.code == 5 and "changed since it was written" in verified.err


def test_killed_after_the_list_and_within_the_deletion(mine: Path) -> None:
    """The list is written first: half deleted is collected too, and the same command does the rest."""
    run = Run.open(mine / "runs/r")
    (mine / REJECTED).with_name("more").write_bytes(b"x")
    from selfrefine.query.tidy import collectable

    (found,) = collectable(run)
    remove(run.path, [type(found)(path=run.path / "nothing", why="", files=found.files, size=0)])
    assert selfrefine("runs", "verify", "r", cwd=mine).code == 0
    (mine / REJECTED).unlink()
    assert selfrefine("runs", "verify", "r", cwd=mine).code == 0
    assert gc(mine, "r", "--yes") == ["runs/r/round-002/adapter"]


def test_gc_keeps_an_adapter_that_another_run_starts_from(mine: Path) -> None:
    config = manifest("x").config | {"adapter": "runs/r/round-002/adapter"}
    make(mine, "other", config=config)
    assert gc(mine, "r") == []
    shutil.rmtree(mine / "runs/other")
    assert gc(mine, "r") == ["runs/r/round-002/adapter"]


def test_gc_takes_what_a_killed_process_left_and_no_work_in_progress(mine: Path) -> None:
    for name in ("round-001/.adapter.building", "round-003/train.ckpt"):
        (mine / "runs/r" / name).mkdir()
    assert gc(mine, "r", "--yes") == ["runs/r/round-002/adapter", "runs/r/round-001/.adapter.building"]
    assert (mine / "runs/r/round-003/train.ckpt").is_dir()
    assert (mine / "runs/r/round-003/generate.jsonl.part").is_file()


def test_neither_touches_a_run_that_is_being_written(mine: Path) -> None:
    with (mine / "runs/r/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        for verb in ("gc", "rm"):
            refused(selfrefine("runs", verb, "r", "--yes", cwd=mine), 5, f"locked by process {os.getpid()}")
        assert gc(mine, "--yes") == []  # of all runs: this one is left alone
    assert (mine / REJECTED).is_file()


def test_rm_deletes_the_run_and_nothing_beside_it(mine: Path) -> None:
    make(mine, "r2", open_round=False)
    (mine / "outside").mkdir()
    (mine / "outside/adapter_model.safetensors").write_bytes(b"mine")
    link = mine / "runs/r/adapter"
    link.unlink(missing_ok=True)
    link.symlink_to(mine / "outside")
    asked = selfrefine("runs", "rm", "r", cwd=mine)
    assert asked.code == 2 and "--yes" in asked.err and (mine / "runs/r").is_dir()
    done = selfrefine("runs", "rm", "r", "--yes", cwd=mine)
    assert done.code == 0 and "runs/r: 2 rounds, " in done.err
    assert [path.name for path in (mine / "runs").iterdir() if path.is_dir()] == ["r2"]
    assert (mine / "outside/adapter_model.safetensors").read_bytes() == b"mine"


def test_rm_deletes_a_damaged_run_and_says_who_starts_from_it(mine: Path) -> None:
    (mine / "runs/r/round-000/round.json").unlink()
    make(mine, "other", config=manifest("x").config | {"adapter": "runs/r/adapter"})
    done = selfrefine("runs", "rm", "r", "--yes", cwd=mine)
    assert done.code == 0 and "the run other starts from its" in done.err
    assert not (mine / "runs/r").exists()


def test_rm_refuses_what_is_not_a_run_folder(mine: Path) -> None:
    site = mine / "site"
    site.mkdir()
    (site / "manifest.json").write_text(json.dumps({"name": "a web page", "icons": []}))
    refused(selfrefine("runs", "rm", "./site", "--yes", cwd=mine), 5, "not written by selfrefine")
    (mine / "runs/link").symlink_to(mine / "runs/r")
    refused(selfrefine("runs", "rm", "runs/link", "--yes", cwd=mine), 5, "is a link")
    refused(selfrefine("runs", "rm", "nothing", "--yes", cwd=mine), 5, "no run")
    (mine / "runs/r/thesis.tex").write_text("x")
    refused(selfrefine("runs", "rm", "r", "--yes", cwd=mine), 5, "thesis.tex")
    assert (mine / "runs/r/manifest.json").is_file() and (site / "manifest.json").is_file()


def test_of_several_none_is_deleted_if_one_is_refused(mine: Path) -> None:
    make(mine, "r2")
    refused(selfrefine("runs", "rm", "r", "nothing", "--yes", cwd=mine), 5, "nothing")
    assert (mine / "runs/r").is_dir()


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_a_person_is_asked_and_no_means_no(answer: str, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfrefine.cli import runs_tidy

    monkeypatch.setattr(runs_tidy, "_answer", lambda question: answer)
    assert selfrefine("runs", "rm", "r", stdin=None, cwd=mine, terminal=True).code == 2
    assert (mine / "runs/r").is_dir()
    monkeypatch.setattr(runs_tidy, "_answer", lambda question: "y\n")
    assert selfrefine("runs", "rm", "r", stdin=None, cwd=mine, terminal=True).code == 0
    assert not (mine / "runs/r").exists()


def test_rm_deletes_a_run_that_was_reflected_on(mine: Path) -> None:
    """Trap: `selfrefine reflect RUN` makes a folder in the run, which then is no foreign file."""
    assert selfrefine("reflect", "r", "--no-causes", cwd=mine).code == 0
    assert (mine / "runs/r/reflection/plan.json").is_file()
    done = selfrefine("runs", "rm", "r", "--yes", cwd=mine)
    assert done.code == 0 and not (mine / "runs/r").exists()
