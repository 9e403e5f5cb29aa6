"""Names, locks, rounds and commits of a run folder, on hand-made rows."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from folders import SPLITS, begin, commit_round, manifest, row, summary, task

from selfrefine.errors import DataError, Interrupted, RunFolderError
from selfrefine.records import Message, Task, encode
from selfrefine.runfolder.audit import in_progress, list_runs, verify
from selfrefine.runfolder.locks import only_one
from selfrefine.runfolder.run import Run, locate, new_path, valid_name
from selfrefine.tasks.splits import split


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "-rf", ".hidden", "a" * 101, "a\n", "ü", "a\0"]
)
def test_a_name_that_could_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    assert not valid_name(name)
    with pytest.raises(RunFolderError):
        new_path(tmp_path / "runs", name)
    with pytest.raises(RunFolderError):
        locate(tmp_path / "runs", name)


def test_a_run_of_a_refused_name_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a valid run name"):
        Run.create(tmp_path / "my run", manifest(), SPLITS, {})
    assert not any(tmp_path.iterdir())


def test_a_run_is_found_by_name_and_by_path(run: Run) -> None:
    runs = run.path.parent
    assert locate(runs, "demo") == run.path
    assert locate(Path("elsewhere"), str(run.path)) == run.path


def test_what_is_no_run_is_named_with_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = run.path.parent
    monkeypatch.chdir(runs)  # `../x` beside a checkout may well be there
    (runs / "notes").mkdir()
    with pytest.raises(RunFolderError, match=r"not a run folder: it has no manifest.json"):
        locate(runs, "notes")
    with pytest.raises(RunFolderError, match=r"did you mean demo\?"):
        locate(runs, "dmeo")
    commit_round(run, 0)
    for name in ("br9", "run-008"):
        run.path.with_name(name).mkdir()
        (run.path.with_name(name) / "manifest.json").touch()
    for name in ("br7", "run-7"):  # one of a series is not a misspelt other
        with pytest.raises(RunFolderError, match="`selfrefine runs ls` lists them"):
            locate(runs, name)
    with pytest.raises(RunFolderError, match=r"did you mean run-008\?"):
        locate(runs, "run-8")
    with pytest.raises(RunFolderError, match=r"no run at \.\./x"):
        locate(runs, "../x")
    with pytest.raises(RunFolderError):
        locate(runs, "x/" + "y" * 5000)
    (runs / "outside").symlink_to(run.path.rename(runs.parent / "elsewhere"))
    with pytest.raises(RunFolderError, match="is a link out of"):
        locate(runs, "outside")


def test_a_run_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    leftover = tmp_path / ".demo.building"
    leftover.mkdir()
    (leftover / "junk").write_text("of a killed process")
    run = Run.create(tmp_path / "demo", manifest(), SPLITS, {"critique.md": "x"})
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != ".lock") == ["demo"]
    assert sorted(str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()) == [
        *("manifest.json", "prompts/critique.md"),
        *("tasks/gate.jsonl", "tasks/test.jsonl", "tasks/train.jsonl"),
    ]
    again = Run.open(run.path)
    assert again.manifest == run.manifest
    assert again.tasks("train") == SPLITS["train"]
    with pytest.raises(RunFolderError, match="already exists: continue it with `selfrefine cycle --run /"):
        Run.create(run.path, manifest(), SPLITS, {})


def test_a_run_that_does_not_fit_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what was built, nor the lock, nor a folder of runs, but what was there before stays."""

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    Run.create(tmp_path / "old" / "one", manifest(), SPLITS, {})
    monkeypatch.setattr("selfrefine.runfolder.run.sync_tree", full)
    for folder in ("old", "new"):
        with pytest.raises(RunFolderError, match=r"disk full: .*: no run was made"):
            Run.create(tmp_path / folder / "two", manifest(), SPLITS, {})
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.glob("**/*") if "one/" not in f"{p}/") == [
        *("old", "old/.lock")
    ]


def test_who_waits_for_a_lock_that_was_removed_locks_the_new_one(tmp_path: Path) -> None:
    """The trap: a lock on a file that has no name any more keeps nobody out."""
    begin, ready, go = os.pipe(), os.pipe(), os.pipe()
    pid = os.fork()  # first, or it would inherit the lock
    if pid == 0:
        os.read(begin[0], 1)
        with only_one(tmp_path / "runs"):
            os.write(ready[1], b".")
            os.read(go[0], 1)
        os._exit(0)
    with pytest.raises(RunFolderError), only_one(tmp_path / "runs"):
        os.write(begin[1], b".")
        time.sleep(0.2)  # it waits by now
        raise RunFolderError("no run was made")
    os.read(ready[0], 1)
    fd = os.open(tmp_path / "runs" / ".lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
    os.write(go[1], b".")
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (task("a", "something else"), r"share 1 task: row 1 of test \('a'\) has the id of row 1 of train"),
        (task("z", " 1  +\n1? "), r"share 1 task: row 1 of test \('z'\) has the prompt of row 1 of train"),
    ],
)
def test_splits_that_share_a_task_are_refused(tmp_path: Path, other: Task, why: str) -> None:
    """The trap: train_dir and eval_dir were one file (Online-RLHF)."""
    with pytest.raises(DataError, match=why):
        Run.create(tmp_path / "demo", manifest(), SPLITS | {"test": [other]}, {})
    assert not (tmp_path / "demo").exists()


def test_what_the_splits_take_for_two_questions_the_run_does_too(tmp_path: Path) -> None:
    """The same words from the system and from the user were two tasks for `split` and one for the run folder,
    which refused the splits it was given. Of what is one question in either, one is dropped beforehand."""
    texts = [f"Ｗhat IS  {i} + Straße" for i in range(12)]
    said = [task(f"u{i}", text) for i, text in enumerate(texts)]
    ordered = [
        msgspec.structs.replace(
            one, id=f"s{i}", prompt=(Message(role="system", content=one.prompt[0].content),)
        )
        for i, one in enumerate(said)
    ]
    again = [task(f"x{i}", f"what is {i} + strasse\n") for i in range(12)]
    parts = split([*said, *ordered, *again], seed=0, gate=6, test=6)
    splits = {"train": parts.train, "gate": parts.gate, "test": parts.test}
    run = Run.create(tmp_path / "demo", manifest(), splits, {})
    assert [len(run.tasks(name)) for name in splits] == [12, 6, 6]
    held = {one.prompt[0].content for one in (*parts.gate, *parts.test)}
    assert held & {one.prompt[0].content for one in parts.train}  # or this test would show nothing


def test_changed_tasks_are_refused(run: Run) -> None:
    """The trap: a resume that trained on other data than before (verl#7816)."""
    with (run.path / "tasks" / "train.jsonl").open("ab") as stream:
        stream.write(encode(task("new", "2 + 2?")) + b"\n")
    with pytest.raises(RunFolderError, match="changed after the run was made"):
        run.tasks("train")


@pytest.mark.parametrize("text", [b"", b"[]", b'{"schema_version": 99}', b'{"schema_version": 1}', b"\xff"])
def test_a_damaged_manifest_is_a_run_folder_error(run: Run, text: bytes) -> None:
    (run.path / "manifest.json").write_bytes(text)
    with pytest.raises(RunFolderError, match=r"manifest\.json"):
        Run.open(run.path)
    [info] = list_runs(run.path.parent)
    assert info.problem and info.manifest is None


# --- one writer ------------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_told_whose_lock_it_is(run: Run) -> None:
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        with run.lock():
            os.write(ready[1], b".")
            os.read(go[0], 1)
            os.kill(os.getpid(), 9)  # the kernel lets go of a dead process's lock
    os.read(ready[0], 1)
    with pytest.raises(RunFolderError, match=f"locked by process {pid}"), run.lock():
        pass
    with pytest.raises(RunFolderError, match=f"is being made or run by process {pid}"):
        Run.create(run.path, manifest(), SPLITS, {})  # the same command twice at once: no "continue it"
    assert Run.open(run.path).tasks("gate") == SPLITS["gate"], "reading needs no lock"
    os.write(go[1], b".")
    os.waitpid(pid, 0)
    with run.lock():
        assert (run.path / ".lock").read_text() == f"{os.getpid()}\n"
    assert (run.path / ".lock").read_text() == "", "a finished run is the same bytes whoever finished it"


# --- stages and rounds -----------------------------------------------------------------------------


def test_a_stage_does_not_repeat_committed_units(run: Run) -> None:
    """The notes of all units, those of a process that died too, come to the stage's summary."""
    done: list[str] = []
    before: list[bytes] = []

    def work(unit: str) -> tuple[list[bytes], bytes]:
        done.append(unit)
        return [row("base", id=unit)], b'"%s"' % unit.encode()

    def notes(found: Sequence[bytes]) -> bytes:
        return b"[%s]" % b",".join(found)

    def stop() -> None:
        if len(done) == 2:
            raise Interrupted("stopped", 2)

    begin(run)
    plan = ["a", "b", "c"]
    with pytest.raises(Interrupted):
        run.round(0).stage("generate", plan, work, should_stop=stop)
    assert in_progress(run) == ["round-000/generate.jsonl.part"]
    assert verify(run) == [], "in progress is not a problem"
    assert not run.round(0).has("generate")
    run.round(0).stage("generate", plan, work, resumed=before.extend, summarise=notes)
    run.round(0).stage("generate", plan, work, summarise=notes)
    assert done == ["a", "b", "c"]
    assert before == [row("base", id="a"), row("base", id="b")]
    assert run.round(0).summary_file("generate").read_bytes() == b'["a","b","c"]'
    assert [sample.id for sample in run.round(0).samples("generate")] == ["a", "b", "c"]


def test_a_shorter_plan_than_what_is_committed_is_refused(run: Run) -> None:
    def fail_at_two(n: int) -> tuple[list[bytes], bytes]:
        if n == 2:
            raise Interrupted("stopped", 2)
        return [row("base")], b"null"

    with pytest.raises(Interrupted):
        run.round(0).stage("generate", range(3), fail_at_two)
    with pytest.raises(RunFolderError, match="has 2 batches, the plan 1"):
        run.round(0).stage("generate", range(1), fail_at_two)


def test_round_json_is_what_makes_a_round_count(run: Run) -> None:
    run.round(0).stage("generate", [0], lambda _: ([row("base")], b"null"))
    assert (run.next_round(), run.rounds(), run.accepted_round, run.accepted_adapter) == (0, [], 0, None)
    full = commit_round(run, 0)
    assert list(full.artifacts) == ["generate.jsonl"]
    assert run.summary(0) == full
    assert run.next_round() == 1
    with pytest.raises(RunFolderError, match="is committed"):
        run.round(0).commit(summary(0))
    with pytest.raises(RunFolderError, match="is committed"):
        run.round(0).stage("reward", [0], lambda _: ([], b"null"))
    run.round(1).stage("generate", [0], lambda _: ([row("base", 1)], b"null"))
    (run.round(1).path / "reward.jsonl.part").touch()
    with pytest.raises(RunFolderError, match="in progress"):
        run.round(1).commit(summary(1))


def test_the_adapter_link_is_the_accepted_round(run: Run) -> None:
    link = run.path / "adapter"
    commit_round(run, 0)
    assert not link.is_symlink(), "nothing accepted: the policy is the base"
    commit_round(run, 1, accepted=1)
    assert str(link.readlink()) == "round-001/adapter", "relative, so that the folder can move"
    commit_round(run, 2, accepted=1)
    assert run.accepted_adapter == run.round(1).adapter
    moved = Run.open(run.path.rename(run.path.with_name("moved")))
    assert (moved.path / "adapter" / "adapter_model.safetensors").read_bytes() == b"w"
    assert verify(moved) == []
    (moved.path / "adapter").unlink()
    assert verify(moved) == [
        "the link adapter does not point to round 1: any command that writes to the run repairs it"
    ]
    with moved.lock():
        assert verify(moved) == []


def test_the_artifacts_are_those_of_the_round_and_the_checkpoint_is_scratch(run: Run) -> None:
    folder = run.round(0)
    folder.replace_directory("train.ckpt", lambda d: (d / "step").write_text("1"))
    folder.replace_directory("train.ckpt", lambda d: (d / "step").write_text("2"))
    current = folder.directory("train.ckpt")
    assert current and (current / "step").read_text() == "2"

    def nested(place: Path) -> None:
        (place / "sub").mkdir()
        (place / "sub" / "x").write_text("x")

    folder.put_directory("adapter", nested)
    full = folder.commit(summary(0))
    assert list(full.artifacts) == ["adapter/sub/x"]
    assert sorted(p.name for p in folder.path.iterdir()) == ["adapter", "round.json"]


def test_a_directory_build_that_fails_leaves_no_directory(run: Run) -> None:
    def fail(place: Path) -> None:
        (place / "half").write_text("half")
        raise DataError("no")

    with pytest.raises(DataError):
        run.round(1).put_directory("adapter", fail)
    assert not any(run.round(1).path.iterdir()), "what was being built goes, too"
    run.round(1).replace_directory("train.ckpt", lambda d: (d / "step").write_text("1"))
    with pytest.raises(DataError):
        run.round(1).replace_directory("train.ckpt", fail)
    assert [str(p.relative_to(run.round(1).path)) for p in run.round(1).path.rglob("*")] == [
        *("train.ckpt", "train.ckpt/step")
    ]
    run.round(1).put_directory("adapter", lambda d: (d / "whole").write_text(""))
    assert [p.name for p in run.round(1).adapter.iterdir()] == ["whole"]


# --- looking from outside --------------------------------------------------------------------------


def test_a_torn_event_is_cut_and_the_rest_stays(run: Run) -> None:
    run.events.append("started", attempt=1)
    with (run.path / "events.jsonl").open("ab") as stream:
        stream.write(b'{"time":"2')
    again = Run.open(run.path)
    assert [e["kind"] for e in again.events.read()] == ["started"]
    again.events.append("started", attempt=2)
    lines = (run.path / "events.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["attempt"] for line in lines] == [1, 2]
