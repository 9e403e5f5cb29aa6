"""The run that questions are asked of; `hostile.py` lies with the other tests of the command line."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "cli"))

from made import make


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/r in it, to read."""
    folder = tmp_path_factory.mktemp("query")
    make(folder)
    return folder


@pytest.fixture
def mine(here: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(here / "runs", tmp_path / "runs", symlinks=True)
    return tmp_path
