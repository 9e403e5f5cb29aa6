"""A run that lost a round, its policy or its history: what is refused, what goes on, and what is said."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from folders import begin, commit_round, manifest, row

from selfrefine.errors import RunFolderError
from selfrefine.runfolder import whole
from selfrefine.runfolder.audit import list_runs, verify
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import FinalSummary
from selfrefine.stats import Interval


@pytest.fixture
def long(run: Run) -> Run:
    """Round 0 and four others, the last of which is accepted; measured at the end, and after round 2."""
    for index in range(5):
        commit_round(run, index, accepted=index)
    for name, last in (("final", 4), ("final-after-002", 2)):
        ended(run.path / name, last)
    return run


def ended(place: Path, last: int) -> None:
    test = Interval(mean=0.5, lo=None, hi=None, n=1)
    told = FinalSummary(after_round=last, accepted_round=last, policy="base", test=test, test_reads=2)
    place.mkdir()
    (place / "summary.json").write_bytes(msgspec.json.encode(told))


def without(*names: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        for name in names:
            path = run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


LOST = {
    "a round in the middle": (without("round-002"), 2, 4, "round-003, round-004, final, final-after-002"),
    "only its round.json": (without("round-001/round.json"), 1, 4, "round-002 to round-004, final, final-"),
    "round 0": (without("round-000"), 0, 4, "round-001 to round-004, final, final-after-002"),
    "what the end was measured after": (without("round-003", "round-004"), 3, 4, "final"),
    "what an earlier end was": (
        without("round-002", "round-003", "round-004", "final"),
        2,
        2,
        "final-after-",
    ),
}


@pytest.mark.parametrize("what", LOST)
def test_nothing_is_written_to_a_run_that_lost_a_round(long: Run, what: str) -> None:
    """The trap: `cycle` took the rounds before the gap for the whole run, and pointed the adapter there."""
    damage, missing, last, later = LOST[what]
    damage(long.path)
    link = (long.path / "adapter").readlink()
    said = f"round-00{missing}/round.json is missing, but round {last} was committed"
    for refused in (long.check_whole, long.lock().__enter__):
        with pytest.raises(RunFolderError, match=f"is damaged: {said}\n") as error:
            refused()
        assert f"put round-00{missing} back from a copy; or delete what came later ({later}" in str(
            error.value
        )
    assert (long.path / "adapter").readlink() == link
    [info] = list_runs(long.path.parent)
    assert info.state == "damaged" and info.problem and said in info.problem
    # What follows from the gap is not said beside it: that any command repairs the link, for one.
    assert verify(long) == [said]
    # The way out is one.
    named = re.search(r"came later \((.*)\)", str(error.value))
    assert named
    for name in sorted(path.name for path in long.path.iterdir()):
        first, _, to = named[1].split(", ")[0].partition(" to ")
        if name in named[1].split(", ") or first <= name <= to:
            shutil.rmtree(long.path / name)
    with long.lock():
        assert long.next_round() == missing
        assert long.accepted_round == max(0, missing - 1)


def test_a_round_that_is_committed_meanwhile_is_not_lost(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`runs ls` takes no lock. Counted first and looked for then, a new round stood behind a gap."""
    commit_round(run, 0)
    real = whole.first_open

    def slow(path: Path) -> int:
        if not run.round(1).committed:
            before = real(path)
            commit_round(run, 1)
            return max(before, real(path))
        return real(path)

    monkeypatch.setattr(whole, "first_open", slow)
    assert whole.lost_round(run.path) is None


def test_a_copy_of_a_round_beside_it_is_no_later_round(run: Run) -> None:
    commit_round(run, 0)
    for name in ("round-7", "round-007.bak", "round-0007"):
        shutil.copytree(run.round(0).path, run.path / name)
    run.check_whole()


def test_summaries_and_adapters_that_are_gone_are_refused_before_any_work(long: Run) -> None:
    """Those of the middle are read in every round, so a half-made round would be left behind them."""
    file = long.round(2).path / "round.json"
    for path in (file, long.final_file):
        kept = path.read_bytes()
        path.write_bytes(kept[:40])
        with pytest.raises(RunFolderError, match=f"{path.name} is damaged"):
            long.check_whole()
        path.write_bytes(kept)
    shutil.rmtree(long.round(4).adapter)
    with pytest.raises(RunFolderError, match="it is the accepted policy's adapter; put it back from a copy"):
        long.check_whole()


@pytest.mark.parametrize("accepted", [0, 1])
def test_a_folder_in_the_place_of_the_link_is_kept_and_named(run: Run, accepted: int) -> None:
    """`cp -rL` makes one. A rename onto it was a bug; with nothing accepted the run passed for whole."""
    commit_round(run, 0)
    commit_round(run, 1, accepted=accepted)
    (run.path / "adapter").unlink(missing_ok=True)
    shutil.copytree(run.round(1).adapter, run.path / "adapter")
    with (
        pytest.raises(RunFolderError, match="adapter is no link to the accepted round's") as error,
        run.lock(),
    ):
        pass
    assert verify(run) == [str(error.value)]
    shutil.rmtree(run.path / "adapter")
    with run.lock():
        assert verify(run) == []


def test_a_link_to_another_round_is_repaired_by_the_first_command(long: Run) -> None:
    (long.path / "adapter").unlink()
    (long.path / "adapter").symlink_to("round-001/adapter")
    with long.lock():
        assert str((long.path / "adapter").readlink()) == "round-004/adapter"


@pytest.mark.parametrize(
    ("left", "how"),
    [
        (None, "is missing"),
        (b"", "has no event"),
        (b'{"time":"2', "has no event"),
        (b"\0" * 9, "has no event"),
    ],
)
def test_a_run_without_its_events_is_not_whole(run: Run, left: bytes | None, how: str) -> None:
    """The trap: what no hash speaks of is missed by the events only, so without them nothing was missed.
    After a power cut a file may be empty, or zeros."""
    commit_round(run, 0)
    assert whole.lost_history(run.path) is None and verify(run) == []
    run.events.path.unlink()
    if left is not None:
        run.events.path.write_bytes(left)
    said = f"events.jsonl {how}, but round-000 was begun"
    assert any(line.startswith(said) for line in verify(run))
    [info] = list_runs(run.path.parent)
    assert info.state == "damaged" and info.problem
    assert info.problem.startswith((said, "events.jsonl is damaged"))
    run.check_whole()  # no work depends on it
    begin(run)


def test_a_run_killed_before_its_first_event_lost_nothing(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "demo", manifest(), {}, {})
    with run.lock():
        assert whole.lost_history(run.path) is None and verify(run) == []
    run.events.path.write_bytes(b'{"time":"2')  # killed within it
    assert whole.lost_history(run.path) is None
    [info] = list_runs(tmp_path)
    assert info.state == "damaged"  # its event is cut off, as before
    run.round(0).stage("gate", [0], lambda _: ([row("base")], b"null"))
    assert whole.lost_history(run.path)
