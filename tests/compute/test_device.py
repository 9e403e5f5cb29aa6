"""The device, known without importing torch where that can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness import environment, jsonl, task

from selfrefine.compute import device


def test_a_build_without_gpu_support_is_known_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.pick_device() == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(device.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert device.pick_device() == "cpu" and "torch" not in sys.modules
    monkeypatch.setattr(device.importlib.metadata, "version", lambda name: "2.13.0+cu130")
    monkeypatch.setitem(sys.modules, "torch", torch)  # imported; a second time in one process it breaks
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.pick_device() == "cuda"


@pytest.mark.skipif(not torch.__version__.endswith("+cpu"), reason="asks torch for its GPUs")
def test_a_plan_is_printed_without_torch(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Trap: constants lay beside tensor code, so that `--dry-run` took three seconds, not one."""
    (tmp_path / "t.jsonl").write_bytes(jsonl(*(task(f"t{i}", f"{i} + 2?", str(i + 2)) for i in range(24))))
    words = ["cycle", "--tasks", "t.jsonl", "-r", "exact", "--model", str(tiny_model_dir), "--dry-run"]
    code = (
        "import json, sys\n"
        f"sys.argv = ['selfrefine', *json.loads({json.dumps(json.dumps(words))})]\n"
        "from selfrefine.cli import app\n"
        "from selfrefine.cli.guard import guarded\n"
        "assert guarded(app) == 0\n"
        "print(sorted({'torch', 'transformers', 'peft'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *plan, loaded = done.stdout.splitlines()
    assert loaded == "[]" and any(line.startswith("memory         at most about") for line in plan)
