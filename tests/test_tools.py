"""The tools that make docs and fetch what tests need."""

from __future__ import annotations

import importlib.util
import io
import random
import re
from pathlib import Path

import pytest
from PIL import Image

from tools import vendor
from tools.screenshots import MOST_BYTES, small


def test_a_package_with_other_bytes_is_refused_also_when_it_was_fetched_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor, "PLACE", tmp_path)
    folder = tmp_path / f"axe-core-{vendor.AXE.version}"
    folder.mkdir()
    for name in vendor.AXE.files:
        (folder / name).write_text("alert(1)")
    with pytest.raises(vendor.VendorError, match=r"axe\.min\.js has sha256 [0-9a-f]{64}, expected 2934"):
        vendor.fetched(vendor.AXE)


def test_without_npm_there_is_a_reason_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor, "PLACE", tmp_path / "vendor")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(vendor.VendorError, match="npm, which is not installed"):
        vendor.fetched(vendor.AXE)
    assert not (tmp_path / "vendor").exists()


def test_a_package_that_npm_cannot_fetch_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: an npm that waits for a network would hold up all tests."""
    for script, said in (("sleep 9", "had no axe-core@.* after 0 s"), ("echo no net >&2; exit 1", "no net")):
        npm = tmp_path / "npm"
        npm.write_text(f"#!/bin/sh\n{script}\n")
        npm.chmod(0o755)
        monkeypatch.setattr(vendor, "PLACE", tmp_path / "vendor")
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        with pytest.raises(vendor.VendorError, match=said):
            vendor.fetched(vendor.AXE, timeout_s=0.3)
        assert list((tmp_path / "vendor").iterdir()) == []


def test_a_picture_is_made_small_enough_and_has_its_margin() -> None:
    """Noise, which no palette makes small, is scaled; a flat picture keeps its size."""
    noise = Image.frombytes("RGB", (600, 600), random.Random(0).randbytes(600 * 600 * 3))
    flat = Image.new("RGB", (100, 50), "black")
    made = []
    for picture in (noise, flat):
        packed = io.BytesIO()
        picture.save(packed, "PNG")
        made.append(small(packed.getvalue(), margin=10))
        assert len(made[-1]) <= MOST_BYTES
    assert Image.open(io.BytesIO(made[0])).width < 620
    shown = Image.open(io.BytesIO(made[1])).convert("RGB")
    assert (shown.size, shown.getpixel((5, 5)), shown.getpixel((60, 30))) == (
        (120, 70),
        (255, 255, 255),
        (0, 0, 0),
    )


def test_each_benchmark_of_the_makefile_is_a_program_and_has_its_line_of_help() -> None:
    """The trap: a module that was renamed, or a target without help, which `make help` leaves out."""
    root = Path(__file__).parents[1]
    lines = (root / "Makefile").read_text().splitlines()
    told = {}
    for place, line in enumerate(lines):
        if found := re.match(r"(bench[a-z-]*):.*## \S", line):
            [module] = re.findall(r"-m (benchmarks(?:\.\w+)?)", lines[place + 1])
            told[found[1]] = module
            assert importlib.util.find_spec(module if "." in module else f"{module}.__main__"), module
    assert set(told) == {line.partition(":")[0] for line in lines if line.startswith("bench")}
    assert told["bench-critique"] == "benchmarks.revising" and len(told) == 7
