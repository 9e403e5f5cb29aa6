"""Failpoints kill where they are told, and every one of a small run can be survived byte for byte."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from selfrefine.records import Message, Task
from selfrefine.runfolder import failpoints, jsonl
from selfrefine.runfolder.part import PartFile
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import GateDecision, RoundSummary, RunManifest

MANIFEST = RunManifest(
    name="demo", argv=(), config={}, origins={}, seeds={}, git={}, packages={}, model={}, prompts={},
    tasks={}, chat_template_sha256="", device="cpu", dtype="float32", threads=1, token_budget=1,
)  # fmt: skip
SPLITS = {
    split: [Task(id=split, prompt=(Message(role="user", content=f"{split}?"),))]
    for split in ("train", "gate")
}


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process wrote stays in the page cache: syncing would only make these tests slow."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def in_child(body: Callable[[], object], **env: str) -> int:
    """Fork, set the environment, run; the signal that ended the child, negative exit code for a bug, 0."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ.update(env)
            failpoints.reset()
            body()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def small_run(path: Path) -> None:
    """Two rounds by resumable steps only: the same call begins a run and continues it."""
    prompts = {"critique.md": "{{ task }}\n"}
    run = Run.open(path) if path.exists() else Run.create(path, MANIFEST, SPLITS, prompts)
    with run.lock():
        for k in (0, 1, 2):
            if not run.round(k).committed:
                one_round(run, k)
        run.final.stage("test", [0], lambda _: ([b'{"end":1}'], b"null"))


def one_round(run: Run, k: int) -> None:
    folder = run.round(k)
    # Rows differ in length, so a cut at the wrong byte cannot go unseen; the middle batch is empty.
    folder.stage(
        "generate",
        [3, 0, 2],
        lambda n: ([b'{"k":%d,"x":"%s"}' % (k, b"y" * n * i) for i in range(n)], b"%d" % n),
        summarise=lambda notes: b"[%s]" % b",".join(notes),
    )
    accepted = k == 1
    if k:
        finetune(folder)
    gate = (
        GateDecision(
            outcome="accept" if accepted else "reject",
            accepted=accepted,
            before=0.0,
            after=float(accepted),
            n=1,
            reason="-",
        )
        if k
        else None
    )
    folder.commit(
        RoundSummary(index=k, policy_before="a", policy_after="b", gate=gate, accepted_round=min(k, 1))
    )


def write_step(step: int, place: Path) -> None:
    (place / "step").write_text(str(step))


def finetune(folder: RoundDir) -> None:
    """Two steps with a checkpoint after each; the state is a counter, so a lost or doubled step shows."""
    if folder.has("adapter"):
        return
    last = folder.directory("train.ckpt")
    done = int((last / "step").read_text()) if last else 0
    for step in range(done + 1, 3):
        folder.replace_directory("train.ckpt", partial(write_step, step))

    def save(place: Path) -> None:
        state = (folder.path / "train.ckpt" / "step").read_text()
        (place / "weights.safetensors").write_text(f"{folder.index}:{state}")
        (place / "sub").mkdir()
        (place / "sub" / "adapter_config.json").write_text("{}")

    folder.put_directory("adapter", save)


def tree(path: Path) -> dict[str, object]:
    """Everything under a folder: bytes of files, targets of links, hidden leftovers included."""
    found: dict[str, object] = {}
    for item in sorted(path.rglob("*")):
        name = str(item.relative_to(path))
        if item.is_symlink():
            found[name] = f"-> {item.readlink()}"
        elif item.is_file():
            found[name] = item.read_bytes()
        else:
            found[name] = "directory"
    return found


def enumerate_failpoints(tmp_path: Path) -> tuple[dict[str, object], list[str]]:
    log = tmp_path / "log"
    (tmp_path / "whole").mkdir()
    assert in_child(partial(small_run, tmp_path / "whole" / "run"), SELFREFINE_FAILPOINT_LOG=str(log)) == 0
    return tree(tmp_path / "whole"), log.read_text().splitlines()


def test_unset_is_silent_and_the_log_numbers_from_one(tmp_path: Path) -> None:
    failpoints.failpoint("nobody listens")
    log = tmp_path / "log"

    def body() -> None:
        failpoints.failpoint("a")
        failpoints.failpoint("b")
        failpoints.failpoint("c")

    code = in_child(body, SELFREFINE_FAILPOINT="2", SELFREFINE_FAILPOINT_LOG=str(log))
    assert code == signal.SIGKILL
    assert log.read_text() == "1 a\n2 b\n"


def test_every_failpoint_of_a_small_run_is_survived_byte_for_byte(tmp_path: Path) -> None:
    expected, passed = enumerate_failpoints(tmp_path)
    names = {line.split()[1] for line in passed}
    assert names >= {
        *("part.half-data", "part.data-synced", "part.half-idx", "part.renamed", "part.idx-removed"),
        *("atomic.half-written", "atomic.before-rename", "commit.round-json", "link.made", "link.swapped"),
        *("create.before-rename", "directory.before-rename", "replace.old-away", "replace.renamed"),
    }
    for number, name in enumerate(passed, start=1):
        run = tmp_path / f"killed-{number}" / "run"
        run.parent.mkdir()
        assert in_child(partial(small_run, run), SELFREFINE_FAILPOINT=str(number)) == signal.SIGKILL, name
        assert in_child(partial(small_run, run)) == 0, f"did not resume after {name}"
        assert tree(run.parent) == expected, f"other bytes after {name}"


def no_tail_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartFile, "_cut_tail", lambda self: None)


def resume_at_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_after_the_last_whole_row(self: PartFile) -> None:
        data = self.path.read_bytes()
        os.ftruncate(self._data_fd, data.rfind(b"\n") + 1)
        os.ftruncate(self._idx_fd, self._idx_size)

    monkeypatch.setattr(PartFile, "_cut_tail", cut_after_the_last_whole_row)


def non_atomic_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def write_in_place(path: Path, data: bytes) -> None:
        with path.open("wb", buffering=0) as stream:
            jsonl.write_whole(stream.fileno(), data, "half")

    monkeypatch.setattr("selfrefine.runfolder.round.atomic_write", write_in_place)


@pytest.mark.parametrize("plant", [no_tail_repair, resume_at_a_row, non_atomic_commit])
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard of the guard: a harness that cannot fail proves nothing."""
    plant(monkeypatch)
    expected, passed = enumerate_failpoints(tmp_path)
    for number, line in enumerate(passed, start=1):
        if "half" not in line:
            continue
        run = tmp_path / f"killed-{number}" / "run"
        run.parent.mkdir()
        in_child(partial(small_run, run), SELFREFINE_FAILPOINT=str(number))
        if in_child(partial(small_run, run)) != 0 or tree(run.parent) != expected:
            return
    pytest.fail("the planted bug went unseen")
