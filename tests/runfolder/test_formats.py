"""Files by their endings: packed and Parquet input, packed output, names under which nothing is written."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow
import pytest
from pyarrow import parquet

from selfrefine.errors import ConfigError, DataError, UsageError
from selfrefine.runfolder.jsonl import lines, open_input, open_output
from selfrefine.tasks import TaskOptions, load

ROWS = [b'{"prompt": "a"}\n', b"\n", b'{"prompt": "caf\xc3\xa9", "references": ["1"]}\n']


def table(rows: list[dict[str, Any]]) -> Any:
    """Of rows that do not all have the same columns; `from_pylist` goes by the first."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pyarrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])


def parquet_bytes(data: bytes) -> bytes:
    rows = [msgspec.json.decode(line) for line in data.split(b"\n") if line]
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table(rows), sink)
    return bytes(sink.getvalue().to_pybytes())


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".jsonl": bytes,
    ".jsonl.gz": gzip.compress,
    ".jsonl.zst": lambda data: bytes(pyarrow.compress(data, codec="zstd", asbytes=True)),
    ".parquet": parquet_bytes,
}


@pytest.mark.parametrize("ending", PACK)
def test_a_file_is_read_by_its_ending_and_a_bad_row_named_by_its_line(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{ending}"
    path.write_bytes(PACK[ending](b"".join(ROWS)))
    found = list(load(str(path), TaskOptions()))
    assert [(task.prompt[-1].content, task.references) for task in found] == [("a", ()), ("café", ("1",))]
    path.write_bytes(PACK[ending](ROWS[0] + b'{"prompt": " "}\n'))
    with pytest.raises(DataError, match=rf"t{ending}:2: the prompt must end"):
        list(load(str(path), TaskOptions()))


@pytest.mark.parametrize("ending", [".txt.gz", ".txt.zst"])
def test_packed_text_is_text(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{ending}"
    path.write_bytes(PACK[ending.replace("txt", "jsonl")](b"Say hi.\nSay ho.\n"))
    assert [task.prompt[-1].content for task in load(str(path), TaskOptions())] == ["Say hi.", "Say ho."]


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst", ".parquet"])
@pytest.mark.parametrize("broken", ["torn", "plain", "empty"])
def test_a_broken_file_is_named(ending: str, broken: str, tmp_path: Path) -> None:
    """A download that stopped in the middle must not pass for a shorter file."""
    path, whole = tmp_path / f"t{ending}", PACK[ending](ROWS[0] * 500)
    path.write_bytes({"torn": whole[:-7], "plain": ROWS[0], "empty": b""}[broken])
    with pytest.raises(DataError, match=rf"t{ending}"):
        list(load(str(path), TaskOptions()))


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_packed_data_under_another_name_is_said_to_be_that(ending: str) -> None:
    """`selfrefine reward < rows.jsonl.gz` complained of a byte that is not UTF-8."""
    data = PACK[ending](ROWS[0])
    with pytest.raises(DataError, match=r"stdin: this is (gzip data|zstd data|a Parquet file)"):
        list(lines([data], "stdin"))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_output_is_packed_as_its_name_says_and_the_same_every_time(ending: str, tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.jsonl{ending}"
        with open_output(str(path)) as write:
            for row in ROWS:
                write(row)
        with open_input(str(path)) as stream:
            assert list(stream) == ROWS
        files.append(path.read_bytes())
    assert files[0] == files[1] and not files[0].startswith(b"{")
    with pytest.raises(RuntimeError), open_output(str(tmp_path / f"c{ending}")) as write:
        write(b"half")
        raise RuntimeError
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl.bz2", "x.zip"])
def test_no_plain_rows_stand_under_a_name_that_promises_others(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.jsonl\.gz"), open_output(str(tmp_path / name)):
        pass
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.jsonl.zst"
    path.write_bytes(PACK[".jsonl.zst"](ROWS[0]))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"selfrefine\[files\]"):
        list(load(str(path), TaskOptions()))
    with pytest.raises(ConfigError, match=r"selfrefine\[files\]"), open_output(str(path)):
        pass


def test_a_column_that_a_row_has_not_is_null_in_parquet_alone(tmp_path: Path) -> None:
    """A table has every column in every row; `"tags": {"level": null}` would be refused."""
    rows: list[dict[str, Any]] = [
        {"id": "a", "prompt": "x", "tags": {"level": "1"}},
        {"id": "b", "prompt": "y", "references": ["1"]},
        {"id": "c", "prompt": "z", "tags": {"kind": "2"}},
    ]
    path = tmp_path / "t.parquet"
    parquet.write_table(table(rows), path)
    found = list(load(str(path), TaskOptions()))
    assert [task.tags for task in found] == [{"level": "1"}, {}, {"kind": "2"}]
    assert [task.references for task in found] == [(), ("1",), ()]
