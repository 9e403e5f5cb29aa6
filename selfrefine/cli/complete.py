"""What the shell offers at the Tab key: names, never anything that takes a model or a long import."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from selfrefine.layers import describe, keys
from selfrefine.recipes import names
from selfrefine.registry import registry

Complete = Callable[[str], list[str]]


def _offer(find: Callable[[], Iterable[str]]) -> Complete:
    def complete(incomplete: str) -> list[str]:
        return [name for name in find() if name.startswith(incomplete)]

    return complete


def kinds(what: str) -> Complete:
    """Names of a registry: "reward", "objective"."""
    return _offer(lambda: registry(what))


NAMED = {
    "reward.use": "reward",
    "reward.gate_on": "reward",
    "evaluate.measure": "reward",
    "objective.name": "objective",
}
"""Settings that name what a registry holds."""


def values(key: str) -> Complete | None:
    """What a setting may be, where there are names or choices for it."""
    if key in NAMED:
        return kinds(NAMED[key])
    if key == "model":
        return models
    known = describe(key).choices
    return _offer(lambda: known) if known else None


def _configs() -> Iterable[str]:
    from selfrefine.cli.common import shipped_configs

    return shipped_configs()


def _runs() -> Iterable[str]:
    from selfrefine.cli.common import RUNS_DIR

    return sorted(path.parent.name for path in RUNS_DIR.glob("*/manifest.json"))


STAGES = (
    "proposed",
    "generate",
    "critique",
    "reward",
    "learnable",
    "resampled",
    "rationalised",
    "selected",
    "gate",
    "test",
    "revised",
)
"""Names of a round's files of rows."""

recipes, configs, runs = _offer(names), _offer(_configs), _offer(_runs)
settings = _offer(lambda: [f"{key}=" for key in keys()])
stages = _offer(lambda: STAGES)
sources = _offer(lambda: [f"{kind}:" for kind in registry("task source")])
# Folders are the shell's to offer.
models = _offer(lambda: ["smollm2", *(name for name in registry("engine") if name != "local")])
