"""Whose weights a fine-tune of a run begins with, who sampled, and what it is held against."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfrefine.config import resolve
from selfrefine.steps.work import fine_tune_policies

FIRST, ACCEPTED = Path("first"), Path("accepted")


@pytest.mark.parametrize(
    ("adapter", "accepted", "start", "reference", "expected"),
    [
        # (start, sampler, reference). The model alone, before and after a round was accepted.
        (None, None, "base", "round-0", (None, None, None)),
        (None, ACCEPTED, "base", "round-0", (None, ACCEPTED, None)),
        (None, ACCEPTED, "adapter", "round-0", (ACCEPTED, ACCEPTED, None)),
        (None, ACCEPTED, "adapter", "accepted", (ACCEPTED, ACCEPTED, ACCEPTED)),
        # A run that starts from an adapter: the bare base is nobody's policy here.
        ("first", None, "adapter", "round-0", (FIRST, FIRST, FIRST)),
        ("first", ACCEPTED, "base", "round-0", (FIRST, ACCEPTED, FIRST)),
        ("first", ACCEPTED, "adapter", "round-0", (ACCEPTED, ACCEPTED, FIRST)),
        ("first", ACCEPTED, "adapter", "accepted", (ACCEPTED, ACCEPTED, ACCEPTED)),
        ("first", None, "base", "accepted", (FIRST, FIRST, FIRST)),
    ],
)
def test_policies_of_a_round(
    adapter: str | None, accepted: Path | None, start: str, reference: str, expected: tuple[Path | None, ...]
) -> None:
    table = {"train.start": start, "objective.reference": reference, "objective.name": "dpo"}
    config = resolve([("file", table | ({"adapter": adapter} if adapter else {}))]).config
    work: Any = SimpleNamespace(config=config, run=SimpleNamespace(accepted_adapter=accepted))
    found = fine_tune_policies(work)
    assert (found.start, found.sampler, found.reference) == expected
