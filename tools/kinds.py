"""The tables of rewards, objectives and task sources in docs/configuration.md."""

from __future__ import annotations

from typing import Any

from selfrefine.cli.kind_facts import needs, settings
from selfrefine.fields import settings_of, table
from selfrefine.objectives.base import STRATEGIES
from selfrefine.registry import registry
from selfrefine.rewards.base import PassAt


def rewards() -> str:
    """Every built-in reward and its settings."""
    rows = [
        f"| `{kind.name}` | {kind.about} | {'; '.join(needs('reward', kind))} |"
        for kind in _built_in("reward")
    ]
    own = (
        one for kind in _built_in("reward") for one in settings("reward", kind) if "pass_at" not in one.key
    )
    passes = settings_of(PassAt, "reward.NAME.")
    return "\n".join(
        ["| reward | what it asks | notes |", "|---|---|---|", *rows, "", table(iter([*passes, *own]))]
    )


def objectives() -> str:
    """Every built-in objective and its settings."""
    rows = [
        f"| `{kind.name}` | {kind.about} | {', '.join(f'`{one}`' for one in STRATEGIES[kind.rows])} "
        f"| {kind.learning_rate:g} "
        f"| {'; '.join(needs('objective', kind))} | {kind.source} |"
        for kind in _built_in("objective")
    ]
    own = (one for kind in _built_in("objective") for one in settings("objective", kind))
    head = "| objective | learns from | `select.strategy` | `train.lr` | needs | source |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows, "", table(own)])


def sources() -> str:
    """Every built-in task source and its settings."""
    rows = []
    for kind in _built_in("task source"):
        takes = [f"`--{one.replace('_', '-')}`" for one in kind.takes]
        takes += [f"`--set {one}=`: {text}" for one, text in _settings_of_source(kind)]
        example = kind.example.replace("|", "\\|")
        rows.append(f"| `{kind.spelling}` | {kind.about} | {'; '.join(takes)} | `{example}` |")
    return "\n".join(["| source | what it is | takes | example |", "|---|---|---|---|", *rows])


def _settings_of_source(kind: Any) -> list[tuple[str, str]]:
    if kind.own_settings:
        return [("KEY", "the dataset's own settings")]
    return [(one.key, one.description.rstrip(".")) for one in settings_of(kind.settings)]


def _built_in(what: str) -> list[Any]:
    found = registry(what)
    return [found.get(name) for name in found.built_in]
