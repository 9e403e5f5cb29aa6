"""`selfrefine report`: where the page goes, what is said, and how it follows a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import page_runs
import pytest
from harness import environment, refused, selfrefine

from selfrefine.cli import report
from selfrefine.runfolder.run import Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    page_runs.small(tmp_path / "runs/mine")
    return tmp_path


def test_the_page_lies_where_one_stands_and_the_run_is_as_it_was(folder: Path) -> None:
    """Trap: a file in the run's folder, which is then no longer what it was."""
    before = sorted((path, path.stat().st_mtime_ns) for path in (folder / "runs").rglob("*"))
    done = selfrefine("report", "mine", cwd=folder)
    assert done.code == 0, done.err
    page = folder / "report.html"
    assert done.rows == [{"path": "report.html", "bytes": page.stat().st_size, "runs": ["mine"]}]
    assert done.err.startswith("wrote report.html: ") and len(done.err.splitlines()) == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in (folder / "runs").rglob("*")) == before
    again = selfrefine("report", "mine", "-o", "there.html", cwd=folder, terminal=True)
    assert again.out == b"" and (folder / "there.html").read_bytes() == page.read_bytes()


def test_a_place_that_a_page_must_not_or_cannot_take_is_refused_before_anything_is_read(folder: Path) -> None:
    for place, words in (
        ("runs/mine/report.html", "within the run mine"),
        ("runs/mine/round-001/x.html", "within the run mine"),
        ("runs", "is a folder"),
        ("no/x.html", "there is no folder no"),
        ("-", "names a file"),
    ):
        refused(selfrefine("report", "mine", "-o", place, cwd=folder), 2, words)
    refused(selfrefine("report", "nine", cwd=folder), 5, "no run 'nine'")
    assert not (folder / "report.html").exists()


def test_a_link_into_a_run_is_no_way_around(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "runs/mine/round-001")
    refused(selfrefine("report", "mine", "-o", "link/x.html", cwd=folder), 2, "within the run mine")


def test_without_the_library_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    done = selfrefine("report", "mine", cwd=folder)
    assert done.code == 0
    assert "pip install 'selfrefine[report]'" in done.err
    assert "<svg" not in (folder / "report.html").read_text()


def test_it_opens_in_the_browser_and_says_so_where_there_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import webbrowser

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or len(opened) == 1)
    page = (folder / "report.html").as_uri()
    assert "no browser" not in selfrefine("report", "mine", "--open", cwd=folder).err
    assert f"no browser was found; open {page}" in selfrefine("report", "mine", "--open", cwd=folder).err
    assert opened == [page, page]


def test_watching_a_run_that_nobody_writes_to_ends_at_once(folder: Path) -> None:
    done = selfrefine("report", "mine", "--watch", cwd=folder)
    assert done.code == 0
    assert "nothing writes to mine now" in done.err
    assert 'id="pause"' not in (folder / "report.html").read_text()


class Clock:
    """Stands in for time: at each check of signals a step of the run happens."""

    def __init__(self, run: Run, page: Path) -> None:
        self.run, self.page = run, page
        self.seen: list[str] = []
        self.now = 0.0
        self.lock = run.lock()
        self.lock.__enter__()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += 100

    def check(self) -> None:
        self.seen.append(self.page.read_text())
        if len(self.seen) == 1:
            self.run.events.append("stage-begin", round=3, stage="generate")
        if len(self.seen) == 3:
            self.lock.__exit__(None, None, None)


def test_a_run_that_goes_on_is_followed_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written when it begins, again after an event, not again without one, at the end without following."""
    run, page = Run.open(folder / "runs/mine"), folder / "p.html"
    clock = Clock(run, page)
    monkeypatch.setattr(report, "time", clock)
    writes: list[int] = []
    write = report._write
    monkeypatch.setattr(
        report, "_write", lambda runs, path, every: writes.append(every) or write(runs, path, every)
    )
    told = report._follow([run], page, False, clock)  # type: ignore[arg-type]
    assert writes == [report.EVERY_S, report.EVERY_S, 0]
    assert "round 3, generate" not in clock.seen[0] and "round 3, generate" in clock.seen[1]
    assert all('id="pause"' in one for one in clock.seen)
    assert 'id="pause"' not in page.read_text() and told["bytes"] == page.stat().st_size


def test_help_and_listing_load_neither_templates_nor_charts() -> None:
    """Both take a tenth of a second or more, and are for this command only."""
    import subprocess

    from harness import environment

    loaded = "[m for m in ('vl_convert', 'jinja2', 'scipy', 'torch') if m in sys.modules]"
    code = f"import sys, selfrefine.cli; print({loaded})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert json.loads(done.stdout.replace("'", '"')) == []


def test_a_folder_that_was_deleted_under_the_command_is_no_bug(folder: Path, tmp_path: Path) -> None:
    """Trap: a shell stands in a folder that another one deleted; making report.html absolute fails there."""
    (tmp_path / "gone").mkdir()
    words = f"rmdir ../gone; exec {sys.executable} -m selfrefine report {folder}/runs/mine"
    done = subprocess.run(
        ["bash", "-c", words], cwd=tmp_path / "gone", env=environment(), capture_output=True, check=False
    )
    assert done.returncode == 5, done.stderr
    assert b"was deleted: cd to one that exists" in done.stderr and b"traceback" not in done.stderr
