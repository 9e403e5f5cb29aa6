"""A run as a flat table, read back by other programs; a run's packages as pip reads them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made
import pytest
from harness import refused, selfrefine, tree
from hostile import HOSTILE
from made import make, scored

from selfrefine.query import export
from selfrefine.query.flat import csv_line, flat_rows
from selfrefine.runfolder.round import RoundDir


def exported(folder: Path, name: str, *words: str) -> Path:
    done = selfrefine("runs", "export", "r", "-o", name, *words, cwd=folder)
    assert done.code == 0, done.err
    return folder / name


def test_parquet_csv_and_json_hold_the_same_table(here: Path, tmp_path: Path) -> None:
    """Read back with pyarrow and with Python's csv module."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(exported(here, str(tmp_path / "rows.parquet")))
    rows = table.to_pylist()
    lines = [
        json.loads(line) for line in exported(here, str(tmp_path / "rows.jsonl")).read_text().splitlines()
    ]
    assert rows == lines and len(rows) == 14
    assert (
        str(table.schema.field("reward").type) == "double"
        and str(table.schema.field("round").type) == "int64"
    )
    with gzip.open(
        exported(here, str(tmp_path / "rows.csv.gz")), "rt", encoding="utf-8", newline=""
    ) as stream:
        cells = list(csv.DictReader(stream))
    assert [row["id"] for row in cells] == [row["id"] for row in rows]
    assert [float(row["reward"] or "nan") for row in cells][2] == 1.0
    (found,) = [row for row in rows if row["id"] == "b.r1.s0"]
    some = ("stage", "round", "tag.op", "reward.exact", "critique_score", "tokens")
    assert [found[name] for name in some] == ["reward", 1, "sub", 0.1, 0.25, 2]


CELLS: list[tuple[Any, str]] = [
    (None, ""),
    ("", '""'),
    ("=1+1", "'=1+1"),
    ('=HYPERLINK("http://x","y")', '"\'=HYPERLINK(""http://x"",""y"")"'),
    ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
    ("@SUM(A1)", "'@SUM(A1)"),
    ("\t=1", "'\t=1"),
    ("\r=1", '"\'\r=1"'),
    ("-5", "-5"),
    ("+3.5e2", "+3.5e2"),
    ("-5 apples", "'-5 apples"),
    ("a,b", '"a,b"'),
    ("two\nlines", '"two\nlines"'),
    (" x", '" x"'),
    (-5, "-5"),
    (0.5, "0.5"),
]


@pytest.mark.parametrize(("value", "field"), CELLS)
def test_a_field_of_csv(value: Any, field: str) -> None:
    assert csv_line([value]) == f"{field}\n"


def test_exact_leaves_formulas_as_they_are() -> None:
    assert csv_line(["=1+1", "@x"], exact=True) == "=1+1,@x\n"


def test_tags_without_a_column_are_counted(tmp_path: Path) -> None:
    """Trap: a table has room for 500 tags, and the others were left out without a word."""
    run = make(tmp_path, open_round=False)
    row = scored("a", 3, 0, 0.5)
    task = made.task("a", tags={f"t{n:04}": "x" for n in range(502)})
    folder = RoundDir(run.path / "round-003")
    folder.path.mkdir()
    made.stage(
        folder, "reward", type(row)(**{f: getattr(row, f) for f in row.__struct_fields__} | {"task": task})
    )
    done = selfrefine("runs", "export", "r", "-o", "x.csv", "--round", "3", cwd=tmp_path)
    assert done.code == 0 and "; 2 more tags and rewards are left out" in done.err


def test_hostile_texts_and_names_come_back_from_csv_and_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [text for text in HOSTILE.values() if len(text) < 4_000]
    run = make(tmp_path, open_round=False)
    task = made.task("a", tags={text: text for text in texts})
    rows = [scored("a", 3, n, 0.5, text=text) for n, text in enumerate(texts)]
    folder = RoundDir(run.path / "round-003")
    folder.path.mkdir()
    made.stage(
        folder,
        "reward",
        *(type(row)(**{f: getattr(row, f) for f in row.__struct_fields__} | {"task": task}) for row in rows),
    )
    table = parquet.read_table(exported(tmp_path, "x.parquet", "--round", "3")).to_pylist()
    assert [row["text"] for row in table] == texts
    assert [table[0][f"tag.{text}"] for text in texts] == texts
    raw = exported(tmp_path, "x.csv", "--round", "3", "--exact").read_bytes().decode()
    read = list(csv.DictReader(io.StringIO(raw, newline="")))
    assert [row["text"] for row in read] == texts and read[0][f"tag.{texts[0]}"] == texts[0]


def test_a_file_that_exists_is_kept_and_a_failed_export_leaves_nothing(mine: Path) -> None:
    (mine / "x.csv").write_text("mine")
    refused(selfrefine("runs", "export", "r", "-o", "x.csv", cwd=mine), 2, "--force")
    assert (mine / "x.csv").read_text() == "mine"
    assert exported(mine, "x.csv", "--force").read_text().startswith("place,round,stage,id")
    refused(selfrefine("runs", "export", "r", "-o", "x.xlsx", cwd=mine), 2, ".parquet")
    refused(selfrefine("runs", "export", "r", "-o", "x.parquet.gz", cwd=mine), 2, ".parquet")
    path = mine / "runs/r/round-001/reward.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id": 3}\n')
    before = tree(mine)
    for name in ("y.csv", "y.parquet", "y.jsonl.gz"):
        refused(selfrefine("runs", "export", "r", "-o", name, cwd=mine), 4, "round-001/reward.jsonl:5")
    assert tree(mine) == before


def test_an_export_of_nothing_has_its_header(mine: Path) -> None:
    for path in (mine / "runs/r").glob("final/*"):
        path.unlink()
    for path in (mine / "runs/r/round-003").iterdir():
        path.unlink()
    assert exported(mine, "x.csv", "--round", "final").read_text().count("\n") == 1


def test_the_packages_as_constraints(tmp_path: Path) -> None:
    """pip's own parser accepts every line; a local build is asked for by its public version."""
    packages = {
        "python": "3.11.7",
        "selfrefine": "0.1.0",
        "torch": "2.9.0+cpu",
        "numpy": "2.1.0rc1",
        "peft": "not installed",
        "transformers": "5.0.0.dev0",
        "scipy": "1.0\nevil @ http://x",
        "bad name; x": "1.0",
    }
    make(tmp_path, packages=packages, git={"commit": "abc", "dirty": True})
    out = selfrefine("runs", "env", "r", cwd=tmp_path).out.decode()
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["numpy==2.1.0rc1", "torch==2.9.0"]
    assert "# python 3.11.7" in lines and "# peft: not installed" in lines
    assert any("2.9.0+cpu is a local build" in line for line in lines)
    assert any("5.0.0.dev0" in line and "on no index" in line for line in lines)
    assert any("commit abc with changes" in line for line in lines) and "\nevil" not in out
    requirements = pytest.importorskip("packaging.requirements")
    for line in lines:
        if not line.startswith("#"):
            requirements.Requirement(line)
    assert requirements.Requirement("torch==2.9.0").specifier.contains("2.9.0+cpu")


def test_a_stopped_export_leaves_nothing(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM between two rows, when the file has a beginning."""

    def stopped(*given: Any) -> Iterator[list[Any]]:
        for n, row in enumerate(flat_rows(*given)):
            if n == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield row

    monkeypatch.setattr(export, "flat_rows", stopped)
    done = selfrefine("runs", "export", "r", "-o", "x.csv", cwd=mine)
    assert done.code == 143 and "nothing was written" in done.err, done.err
    assert [path.name for path in mine.iterdir()] == ["runs"]
