"""Following a run that goes on; trackers killed at any time; the run does not notice."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import environment, refused, selfrefine
from tfevents import event_file, needs, numbers

from runs import end, event, make, one_round, start, whole
from selfrefine.errors import Interrupted, RunFolderError
from selfrefine.runfolder.audit import verify
from selfrefine.tracking.base import TrackerKind, claimed
from selfrefine.tracking.follow import track
from selfrefine.tracking.points import Point
from selfrefine.tracking.reading import points


class Kept:
    """A tracker in memory."""

    def __init__(self) -> None:
        self.calls: list[list[Point]] = []
        self.closed = False

    def log(self, points: Sequence[Point]) -> None:
        self.calls.append(list(points))

    def close(self) -> None:
        self.closed = True

    @property
    def kind(self) -> TrackerKind:
        return TrackerKind(name="kept", about="", opens=lambda *_: self, look="")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_following_hands_over_what_comes_until_the_run_has_ended(tmp_path: Path) -> None:
    run, kept = make(tmp_path / "runs"), Kept()
    start(run)
    steps = iter(
        [
            lambda: one_round(run, 1),
            lambda: event(run, 30, "failed", code=5, why="disk full"),  # the same command continues it
            lambda: one_round(run, 2, "reject"),
            lambda: end(run, 2),
        ]
    )
    said: list[str] = []
    # `check` is asked between two looks: there the run goes on.
    handed = track(run, kept.kind, tmp_path / "t", True, said.append, lambda: next(steps)(), every_s=1e-9)
    keys = [point.key for call in kept.calls for point in call]
    assert kept.closed and len(keys) == len(set(keys)) == handed
    assert {p.key for p in points(run)} == set(keys)
    assert len(kept.calls) == 5 and "failed (exit 5): disk full" in " ".join(said)


def test_ctrl_c_closes_the_tracker(tmp_path: Path) -> None:
    run, kept = make(tmp_path / "runs"), Kept()
    start(run)

    def stopped() -> None:
        raise Interrupted("stopped", signal.SIGINT)

    with pytest.raises(Interrupted):
        track(run, kept.kind, tmp_path / "t", True, lambda _: None, stopped)
    assert kept.closed and len(kept.calls) == 1


def test_nothing_is_written_into_the_run_and_a_running_one_can_be_tracked(tmp_path: Path) -> None:
    """It takes no lock of the run: the one that writes to it would be refused."""
    run = whole(tmp_path / "runs")
    with run.lock():
        before = tree(run.path)
        kept = Kept()
        assert track(run, kept.kind, tmp_path / "t", False, lambda _: None, lambda: None) == len(points(run))
        assert tree(run.path) == before


def test_two_processes_do_not_write_one_run_into_one_place(tmp_path: Path) -> None:
    run, kept = whole(tmp_path / "runs"), Kept()
    with (
        claimed(tmp_path / "t", run),
        pytest.raises(RunFolderError, match="by another process"),
    ):
        track(run, kept.kind, tmp_path / "t", False, lambda _: None, lambda: None)
    assert not kept.calls


def test_a_damaged_run_is_told_in_a_sentence(tmp_path: Path) -> None:
    run = whole(tmp_path / "runs")
    (run.round(1).path / "generate.json").write_text("{")
    done = selfrefine("runs", "track", run.path, "--to", "tensorboard", "--dir", "t", cwd=tmp_path)
    refused(done, 5, "generate.json is damaged")


@needs("tensorboardX")
def test_the_tracker_killed_while_it_follows_harms_nothing(tmp_path: Path) -> None:
    """kill -9 in the middle, the run goes on and is whole; a tracker started again has every point once."""
    run = make(tmp_path / "runs")
    start(run)
    place = tmp_path / "tb"
    words = ["runs", "track", str(run.path), "--to", "tensorboard", "--dir", str(place), "--follow"]
    process = subprocess.Popen(
        [sys.executable, "-m", "selfrefine", *words], env=environment(), stderr=subprocess.PIPE
    )
    try:
        wait_for(lambda: any(place.glob("demo/events*")) and event_file(place / "demo")[0])
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    with run.lock():
        one_round(run, 1)
        end(run, 1)
    assert [line for line in verify(run) if "adapter" not in line and "policy" not in line] == []
    [written] = place.glob("demo/events*")
    written.write_bytes(written.read_bytes()[:-7])  # as it may be left: a record that is cut off
    done = selfrefine(*words, cwd=tmp_path)
    assert done.code == 0, done.err
    found, _ = event_file(place / "demo")
    assert found.keys() == numbers(points(run)).keys()


def wait_for(found: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if found():
                return
        except (AssertionError, ValueError, OSError):  # half a record
            pass
        time.sleep(0.1)
    raise AssertionError("nothing was written")


@pytest.fixture(autouse=True)
def tidy(tmp_path: Path) -> Any:
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)
