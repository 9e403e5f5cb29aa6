"""A checkpoint store in a folder, as a run has one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


class Folder:
    def __init__(self, path: Path) -> None:
        self.path, self.writes = path, 0

    def load(self) -> Path | None:
        return self.path if self.path.exists() else None

    def replace(self, build: Callable[[Path], None]) -> None:
        scratch = self.path.with_suffix(".new")
        scratch.mkdir()
        build(scratch)
        shutil.rmtree(self.path, ignore_errors=True)
        scratch.rename(self.path)
        self.writes += 1
