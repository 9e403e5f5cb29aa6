"""Every command of docs/rows-and-sql.md is given, in order, to a run made by hand."""

from __future__ import annotations

import sys
from pathlib import Path

from harness import selfrefine
from made import make

sys.path.append(str(Path(__file__).parents[1] / "docs"))

from blocks import ROOT, commands, fences


def test_what_the_page_tells_to_type_works(tmp_path: Path) -> None:
    for name in ("demo", "demo-2"):
        make(tmp_path, name).events.append("end", why="done")
    out, given = b"", 0
    for block in fences(ROOT / "docs" / "rows-and-sql.md", "sh"):
        for words in commands(block):
            stdin = b"" if words[0] == "runs" else out  # a pipe
            done = selfrefine(*words, stdin=stdin, cwd=tmp_path)
            assert done.code == 0, (words, done.err)
            out, given = done.out, given + 1
    assert given >= 12
    assert (tmp_path / "rows.csv").is_file() and not (tmp_path / "runs/demo/round-002/adapter").exists()
