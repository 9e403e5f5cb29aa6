"""Streams, the id index, atomic writes and stages in progress: what a crash or a bad line may not do."""

from __future__ import annotations

import errno
import io
import os
import resource
import subprocess
import sys
import tracemalloc
from codecs import BOM_UTF8
from pathlib import Path

import pytest

from selfrefine.engines.scripted import Rule, Scripted
from selfrefine.errors import DataError, RunFolderError
from selfrefine.runfolder import jsonl
from selfrefine.runfolder.jsonl import (
    IdIndex,
    atomic_write,
    lines,
    open_input,
    open_output,
    sha256_file,
)
from selfrefine.runfolder.part import PartFile
from selfrefine.steps.reward import selftest_rows
from selfrefine.tasks import TaskOptions, load

A, B, C = [b'{"a":1}', b'{"a":22}'], [b'{"b":333}'], [b'{"c":4}', b'{"c":55}', b'{"c":666}']
WHOLE = b"".join(row + b"\n" for row in A + B + C)


def part_of(final: Path) -> tuple[Path, Path]:
    return final.with_name(final.name + ".part"), final.with_name(final.name + ".part.idx")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """Two batches committed, the third not begun."""
    final = tmp_path / "generate.jsonl"
    with PartFile.open(final) as part:
        part.append(A)
        part.append(B)
    return final


def finish(final: Path) -> bytes:
    with PartFile.open(final) as part:
        for batch in (A, B, C)[part.batches :]:
            part.append(batch)
        return part.finish().read_bytes()


# --- lines -----------------------------------------------------------------------------------------


def test_lines_split_on_the_newline_byte_only() -> None:
    """The trap: str.splitlines would cut at U+2028, U+0085 and form feed inside a JSON string."""
    row = '{"t":"a\u2028b\u0085c\x0cd"}'.encode()
    stream = io.BytesIO(b"\xef\xbb\xbf" + row + b"\r\n\n  \n" + b"{}")
    assert list(lines(stream, "in.jsonl")) == [("in.jsonl:1", row), ("in.jsonl:4", b"{}")]


def test_input_that_cannot_be_read_is_a_data_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match="cannot read"), open_input(str(path)):
            pass


# --- ids -------------------------------------------------------------------------------------------


def test_a_duplicate_id_names_both_lines() -> None:
    index = IdIndex()
    index.check("t1.r0.s0", "in.jsonl:3")
    index.check("t1.r0.s1", "in.jsonl:4")
    with pytest.raises(DataError, match=r"in.jsonl:9: the id 't1.r0.s0' was already used at in.jsonl:3$"):
        index.check("t1.r0.s0", "in.jsonl:9")


def test_the_index_costs_at_most_32_bytes_a_row_and_forgets_nothing() -> None:
    """While it grows too: a table that doubles by copying holds three times its size for a moment."""
    rows = 40_000
    tracemalloc.start()
    try:
        index = IdIndex()
        for n in range(rows):
            index.check(f"id-{n}", f"in:{n}")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 32 * rows + 60_000  # 60 kB: the 64 shards' fixed part
    for n in (0, 1, rows // 2, rows - 1):
        with pytest.raises(DataError, match=f"in:{n}$"):
            index.check(f"id-{n}", "in:99999999")


# --- atomic replacement ----------------------------------------------------------------------------


def test_atomic_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "round.json"
    (tmp_path / ".round.json.tmp").write_bytes(b"what a killed process left, longer than the new text")
    atomic_write(path, b"one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["round.json"]


def test_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old\n")
    with pytest.raises(DataError), open_output(str(path)) as write:
        write(b"half\n")
        raise DataError("row 2 is broken")
    assert path.read_bytes() == b"old\n"
    with open_output(str(path)) as write:
        write(b"new\n")
    assert path.read_bytes() == b"new\n"
    assert names(tmp_path) == ["out.jsonl"]
    with pytest.raises(RunFolderError, match="cannot write"), open_output(str(tmp_path / "no" / "o")):
        pass


# --- a stage in progress ---------------------------------------------------------------------------


def test_a_stage_is_one_rename_and_then_only_the_artifact(tmp_path: Path) -> None:
    final = tmp_path / "generate.jsonl"
    with PartFile.open(final) as part:
        for batch in (A, [], B, C):
            part.append(batch)
            assert not final.exists()
        assert part.batches == 4
        assert list(part.rows()) == A + B + C
        part.finish()
    assert final.read_bytes() == WHOLE
    assert names(tmp_path) == ["generate.jsonl"]


@pytest.mark.parametrize("half", [b'{"c":4}\n{"c"', b"\n", WHOLE])
def test_a_torn_batch_is_cut(interrupted: Path, half: bytes) -> None:
    """Whole rows of a batch that was never counted go too: a resume at a row would be another run."""
    with part_of(interrupted)[0].open("ab") as data:
        data.write(half)
    with PartFile.open(interrupted) as part:
        assert (part.batches, part.row_count, list(part.rows())) == (2, 3, A + B)
    assert finish(interrupted) == WHOLE


def test_a_torn_idx_line_uncounts_its_batch(interrupted: Path) -> None:
    data, idx = part_of(interrupted)
    idx.write_bytes(idx.read_bytes()[:-10])
    with PartFile.open(interrupted) as part:
        assert part.batches == 1
    assert data.read_bytes() == b'{"a":1}\n{"a":22}\n'
    assert finish(interrupted) == WHOLE


def test_a_flipped_byte_in_the_middle_is_an_error(interrupted: Path) -> None:
    data, _ = part_of(interrupted)
    text = bytearray(data.read_bytes())
    text[5] ^= 1  # the 1 of {"a":1}: still a JSON row, so only the hash can tell
    data.write_bytes(text)
    with pytest.raises(
        RunFolderError, match=r"generate.jsonl.part: batch 1 has changed since it was committed"
    ):
        PartFile.open(interrupted)
    assert data.read_bytes() == bytes(text), "an error must not repair anything"


def test_a_bad_idx_line_or_lost_bytes_are_errors(interrupted: Path) -> None:
    data, idx = part_of(interrupted)
    good, good_idx = data.read_bytes(), idx.read_bytes()
    idx.write_bytes(b"garbage\n" + good_idx)
    with pytest.raises(RunFolderError, match=r"part.idx:1 is damaged"):
        PartFile.open(interrupted)
    idx.write_bytes(good_idx)
    data.write_bytes(good[:-1])
    with pytest.raises(RunFolderError, match="batch 2 has changed since it was committed"):
        PartFile.open(interrupted)
    data.write_bytes(good)
    idx.unlink()
    with pytest.raises(RunFolderError, match="is missing; to redo this stage, delete"):
        PartFile.open(interrupted)


def test_an_idx_that_outlived_its_rename_is_no_batch(interrupted: Path) -> None:
    """The trap: the idx of a finished stage would claim batches for the next file of that name."""
    data, _ = part_of(interrupted)
    data.rename(interrupted)
    with PartFile.open(interrupted) as part:
        assert part.batches == 0


def test_a_full_disk_loses_nothing_and_the_stage_goes_on(interrupted: Path) -> None:
    """RLIMIT_FSIZE cuts in the middle of a write: first a short write, then EFBIG."""
    data, idx = part_of(interrupted)
    committed = data.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with PartFile.open(interrupted) as part:
        size = max(len(committed), idx.stat().st_size)
        big = [b'"' + b"x" * size + b'"']
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
        try:
            with pytest.raises(
                RunFolderError, match=r"disk full: .*: batches already committed: 2; free space and run"
            ):
                part.append(big)
            assert data.read_bytes() == committed
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        part.append(C)  # the same process may go on
    assert finish(interrupted) == WHOLE


def test_a_full_disk_at_the_idx_uncounts_the_batch(interrupted: Path) -> None:
    idx = part_of(interrupted)[1]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert idx.stat().st_size > len(WHOLE)  # so a limit can hit the idx alone
    with PartFile.open(interrupted) as part:
        resource.setrlimit(resource.RLIMIT_FSIZE, (idx.stat().st_size + 5, hard))
        try:
            with pytest.raises(RunFolderError, match="disk full"):
                part.append(C)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert part.batches == 2
    assert finish(interrupted) == WHOLE


def test_a_row_with_a_newline_is_a_bug_not_two_rows(interrupted: Path) -> None:
    with PartFile.open(interrupted) as part, pytest.raises(ValueError, match="newline"):
        part.append([b'{"a":\n1}'])


def test_data_is_durable_before_the_line_or_the_name_that_says_so(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL cannot tell a missing fsync, a power cut can: so the order of the calls is looked at."""
    happened: list[str] = []
    rename = Path.rename

    def fsync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        happened.append(f"sync {path.name} at {path.stat().st_size}" if path.is_file() else "sync folder")

    def renamed(source: Path, target: Path) -> Path:
        happened.append("rename")
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    with PartFile.open(interrupted) as part:
        idx_size = part_of(interrupted)[1].stat().st_size
        happened.clear()
        part.append(C)
        assert happened[0] == f"sync generate.jsonl.part at {len(WHOLE)}"
        assert happened[1].startswith("sync generate.jsonl.part.idx at ")
        assert int(happened[1].split()[-1]) > idx_size
        happened.clear()
        part.finish()
        assert happened == [f"sync generate.jsonl.part at {len(WHOLE)}", "rename", "sync folder"]
    happened.clear()
    atomic_write(interrupted, b"abc")
    assert happened == ["sync .generate.jsonl.tmp at 3", "rename", "sync folder"]
    assert sha256_file(interrupted).startswith("ba7816bf8f01cfea")  # FIPS 180-2, example B.1


# --- stdout ----------------------------------------------------------------------------------------

CLI = """
import sys
from selfrefine.errors import SelfrefineError
from selfrefine.runfolder.jsonl import write_stdout
try:
    for n in range(20_000):
        write_stdout(b'{"n":%d}\\n' % n)
except SelfrefineError as error:
    print(error, end="", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command, sys.executable, CLI], capture_output=True, text=True)


def test_head_ends_a_pipe_quietly() -> None:
    """No traceback now, and none at interpreter shutdown when the buffer is flushed once more."""
    done = shell('"$0" -c "$1" | head -1; echo ${PIPESTATUS[0]}')
    assert (done.stdout, done.stderr) == ('{"n":0}\n141\n', "")


def test_a_full_stdout_is_said_once_with_the_run_folders_exit_code() -> None:
    done = shell('"$0" -c "$1" > /dev/full')
    assert (done.returncode, done.stderr) == (5, "cannot write to stdout: No space left on device")


def numbers(end: int) -> bytes:
    return b"".join(b'{"n":%d}\n' % n for n in range(end))


def test_a_full_file_behind_stdout_ends_after_a_whole_row(tmp_path: Path) -> None:
    """1,024 bytes: 10 rows of 8, 90 of 9 and 13 of 10 are 1,020. The traps: `>>` to a file whose last line is
    another's half, where only ours may go; and the next command of a group, which wrote behind a hole."""
    out, full = tmp_path / "out", "cannot write to stdout: File too large"
    done = shell(f'ulimit -f 1; "$0" -c "$1" > {out}')
    assert (done.returncode, done.stderr) == (5, full)
    assert out.read_bytes() == numbers(113)
    out.write_bytes(b"old row")  # 1,017 left: 12 rows of 10 and 7 bytes of the next
    done = shell(f'ulimit -f 1; "$0" -c "$1" >> {out}')
    assert (done.returncode, done.stderr) == (5, full)
    assert out.read_bytes() == b"old row" + numbers(112)
    shell(f'ulimit -f 1; ("$0" -c "$1"; echo "$?") > {out}')
    assert out.read_bytes() == numbers(113) + b"5\n"


@pytest.mark.parametrize("flags", [0, os.O_APPEND])
@pytest.mark.parametrize(
    ("others", "left"),
    [
        ({}, b"before\none\n"),
        ({1: b"OTHER"}, b"before\none\nOTHERtw"),
        ({2: b"OTHER"}, b"before\none\ntwOTHER"),
    ],
)
def test_only_our_own_half_of_a_line_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: int, others: dict[int, bytes], left: bytes
) -> None:
    """The disk takes 4 bytes, then 2, then none; another process writes through the same descriptor before
    the second write or before the third. What it wrote stays, although our half stays then too."""
    out = tmp_path / "out"
    out.write_bytes(b"before\n")
    fd = os.open(out, os.O_WRONLY | flags)
    os.lseek(fd, 0, os.SEEK_END)
    sizes, write = iter([4, 2, 0]), os.write
    calls = iter(range(3))

    def nearly_full(fd: int, data: bytes) -> int:
        if other := others.get(next(calls)):
            write(fd, other)
        if not (size := next(sizes)):
            raise OSError(errno.ENOSPC, "full")
        return write(fd, data[:size])

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(OSError, match="full"):
        jsonl._write_lines(fd, b"one\ntwo\n")
    monkeypatch.undo()
    os.close(fd)
    assert out.read_bytes() == left


def test_a_closed_stdout_is_an_error_not_a_crash() -> None:
    done = shell('"$0" -c "$1" >&-')
    assert (done.returncode, done.stderr) == (5, "cannot write to stdout: it is closed")


def test_a_file_saved_by_a_windows_editor_is_read_by_every_reader(tmp_path: Path) -> None:
    """A byte order mark and \\r\\n: rules and self-test rows were refused where task files were read."""
    rules, known, text = tmp_path / "rules.jsonl", tmp_path / "known.jsonl", tmp_path / "ask.txt"
    rules.write_bytes(BOM_UTF8 + b'{"match": "x", "answers": ["y"]}\r\n')
    known.write_bytes(BOM_UTF8 + b'\r\n{"prompt": "1 + 1", "text": "2", "label": "good"}\r\n')
    text.write_bytes(BOM_UTF8 + b"1 + 1\r\n")
    assert Scripted.from_file(rules).policy == Scripted([Rule(match="x", answers=("y",))]).policy
    with known.open("rb") as stream:
        assert [(row.text, row.where) for row in selftest_rows(stream, "known")] == [("2", "known:2")]
    assert [task.prompt[0].content for task in load(str(text), TaskOptions())] == ["1 + 1"]
