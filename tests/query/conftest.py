"""The run that questions are asked of; `hostile.py` lies with the other tests of the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "cli"))

from made import make  # noqa: E402


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with runs/r in it."""
    make(tmp_path)
    return tmp_path
