"""The run that the tests of run folders start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from folders import SPLITS, manifest

from selfrefine.runfolder.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs" / "demo", manifest(), SPLITS, {"critique.md": "Look at {{ task }}"})


# --- names and creation ----------------------------------------------------------------------------
