"""A run of two kept rounds, and one that started from the adapter of the first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import jsonl, selfrefine, task

from selfrefine.runfolder.run import Run

# Answers of the tiny model end at one of these, or none would be learnt from.
SETTINGS = """
model = {model}
[tasks]
source = "t.jsonl"
gate = 6
test = 6
[reward]
use = ["mine.py:f"]
[generate]
n = 2
max_new_tokens = 6
stop = ["a", "e", "o", " ", "n"]
[cycle]
rounds = 2
prompts_per_round = 5
[select]
strategy = "all"
[train]
lr = 1e-3
steps = 2
start = "adapter"
[train.lora]
r = 2
alpha = 4
targets = ["v_proj"]
[gate]
mode = "off"
[guards]
probe = false
"""


@pytest.fixture(scope="session")
def made(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lineage")
    (folder / "mine.py").write_text("def f(sample):\n    return 0.5\n")
    (folder / "c.toml").write_text(SETTINGS.format(model=json.dumps(str(tiny_model_dir))))
    (folder / "t.jsonl").write_bytes(
        jsonl(*(task(f"t{i}", f"What is {i} + 2?", str(i + 2)) for i in range(24)))
    )
    words = ["cycle", "--config", "c.toml"]
    assert (done := selfrefine(*words, "--run", "a", cwd=folder)).code == 0, done.err
    later = [*words, "--rounds", "1", "--set", "adapter=runs/a/round-001/adapter", "--run", "b"]
    assert (done := selfrefine(*later, cwd=folder)).code == 0, done.err
    return folder


@pytest.fixture
def mine(made: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy to change."""
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    yield tmp_path / "copy"
    shutil.rmtree(tmp_path / "copy")


@pytest.fixture
def run(mine: Path) -> Run:
    return Run.open(mine / "runs/a")
