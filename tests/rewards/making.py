"""A reward as `-r NAME` makes it."""

from __future__ import annotations

from typing import Any

import msgspec

from selfrefine.rewards.base import RewardOptions, RewardSpec, Scorer
from selfrefine.steps.reward import build


def made(name: str, engine: Any = None, *, seed: int = 0, reveal: bool = False, **settings: Any) -> Scorer:
    options = RewardOptions(seed=seed, settings={name: settings}, reveal_references=reveal)
    (scorer,) = build([RewardSpec(name=name)], msgspec.structs.replace(options, engine=engine))
    return scorer
