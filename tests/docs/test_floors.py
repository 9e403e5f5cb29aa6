"""The floors as they are drawn and as they are enforced."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_floors_drawn_are_those_that_import_linter_enforces() -> None:
    """Trap: a room moves in one of the two, and the page explains a house that is not there."""
    page = (ROOT / "docs/design.md").read_text()
    drawn = re.search(r"^## Floors$.*?^```text$(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert drawn is not None
    floors = [sorted(floor.split(", ")) for floor in " ".join(drawn[1].split()).split(" > ")]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract for contract in contracts if contract["type"] == "layers")
    assert floors == [sorted(layer.split(" | ")) for layer in layers["layers"]]
    rooms = {
        path.stem
        for path in (ROOT / "selfrefine").iterdir()
        if path.suffix == ".py" or any(path.glob("*.py"))
    }
    assert rooms - {"__init__", "__pycache__"} == {room for floor in floors for room in floor}
