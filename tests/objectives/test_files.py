"""An objective is read before it is trusted: a short file that says where it is from and what it changed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from selfrefine.objectives import OBJECTIVES

MODULES = sorted({place.partition(":")[0] for place in OBJECTIVES.built_in.values()})


def test_these_are_the_objectives() -> None:
    """So that the next test does not pass for want of files."""
    names = [module.removeprefix("selfrefine.objectives.") for module in MODULES]
    assert set(names) >= {"dpo", "grpo", "kto", "reinforce", "rloo", "sft", "weighted_sft"}


@pytest.mark.parametrize("name", MODULES)
def test_an_objective_is_short_and_names_its_source_and_its_departures(name: str) -> None:
    """The trap: a formula that quietly is not the paper's."""
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert len(Path(module.__file__).read_text().splitlines()) < 150
    said = module.__doc__ or ""
    assert "\nSource: " in said and "\nDiffers from the paper" in said
