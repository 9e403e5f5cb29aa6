"""What the shell offers at the Tab key: names, never anything that takes a model or a long import."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Complete = Callable[[str], list[str]]


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def kinds(what: str) -> Complete:
    """Names of a registry: "reward", "objective"."""

    def complete(incomplete: str) -> list[str]:
        from selfrefine.registry import registry

        return _starting(registry(what), incomplete)

    return complete


NAMED = {
    "reward.use": "reward",
    "reward.gate_on": "reward",
    "evaluate.measure": "reward",
    "objective.name": "objective",
}
"""Settings that name what a registry holds."""


def values(key: str) -> Complete | None:
    """What a setting may be, where there are names or choices for it."""
    from selfrefine.layers import describe

    if key in NAMED:
        return kinds(NAMED[key])
    if key == "model":
        return models
    known = describe(key).choices
    return (lambda incomplete: _starting(known, incomplete)) if known else None


def recipes(incomplete: str) -> list[str]:
    from selfrefine.recipes import names

    return _starting(names(), incomplete)


def configs(incomplete: str) -> list[str]:
    from selfrefine.cli.common import shipped_configs

    return _starting(shipped_configs(), incomplete)


def runs(incomplete: str) -> list[str]:
    """The runs in ./runs."""
    from selfrefine.cli.common import RUNS_DIR

    return _starting(sorted(path.parent.name for path in RUNS_DIR.glob("*/manifest.json")), incomplete)


def settings(incomplete: str) -> list[str]:
    """KEY= for --set."""
    from selfrefine.layers import keys

    return _starting((f"{key}=" for key in keys()), incomplete)


def sources(incomplete: str) -> list[str]:
    """KIND: of a task source."""
    from selfrefine.registry import registry

    return _starting((f"{kind}:" for kind in registry("task source")), incomplete)


def models(incomplete: str) -> list[str]:
    """Names of models; folders are the shell's to offer."""
    from selfrefine.registry import registry

    return _starting(["smollm2", *(name for name in registry("engine") if name != "local")], incomplete)
