"""docs/python.md, run as a reader would paste it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from blocks import ROOT, fences


def test_the_blocks_of_the_python_page_run_in_order(tmp_path: Path) -> None:
    blocks = fences(ROOT / "docs/python.md", "python")
    assert len(blocks) == 4
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("runs/first ") and "0 ['gate', 'test'] 0" in done.stdout
    assert done.stdout.endswith("1.0 None\nNone no references\n")
