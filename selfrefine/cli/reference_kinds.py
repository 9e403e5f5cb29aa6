"""What rewards, objectives and task sources say of themselves: the docs' tables, and `ls` and `show`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from selfrefine.fields import Setting, settings_of, table
from selfrefine.objectives.base import STRATEGIES
from selfrefine.registry import registry
from selfrefine.rewards.base import PassAt


def settings(what: str, kind: Any) -> list[Setting]:
    """A kind's own settings, under the keys they have in a configuration."""
    prefix = "tasks.settings" if what == "task source" else f"{what}.{kind.name}"
    structs: list[type[Struct]] = [kind.settings, *([PassAt] if what == "reward" else [])]
    return [setting for struct in structs for setting in settings_of(struct, f"{prefix}.")]


def needs(what: str, kind: Any) -> list[str]:
    """What has to be there for it, or is to be known of it, in a few words each."""
    wants_references = getattr(kind, "needs_references", False)
    found = {
        "references, with some settings": callable(wants_references),
        "references": wants_references is True,
        "a model": getattr(kind, "needs_engine", False),
        "the policy is its own judge": getattr(kind, "judge", "") == "policy",
        "the judge is the model without its adapter": getattr(kind, "judge", "") == "round-0",
        "cannot measure": getattr(kind, "why_no_measure", ""),
        "reports a corpus score": getattr(kind, "corpus", False),
        "logprobs of the sampling policy": getattr(kind, "needs_old_logprobs", False),
        "a reference policy, with some settings": callable(getattr(kind, "needs_reference", False)),
        "a reference policy": getattr(kind, "needs_reference", False) is True,
    }
    return [said for said, holds in found.items() if holds]


def facts(what: str, name: str) -> dict[str, Any]:
    """A line of `ls`. Raises: ConfigError."""
    kind = registry(what).get(name)
    more = {"rows": kind.rows, "learning_rate": kind.learning_rate} if what == "objective" else {}
    return {
        "name": name,
        "about": kind.about,
        **more,
        "needs": needs(what, kind),
        "source": kind.source,
        "plugin": kind.origin.plugin,
    }


def everything(what: str, name: str) -> dict[str, Any]:
    """What `show` prints. Raises: ConfigError."""
    kind = registry(what).get(name)
    told = [
        {
            "key": one.key,
            "value": ", ".join(one.choices) or one.kind,
            "default": one.default,
            "description": one.description,
        }
        for one in settings(what, kind)
    ]
    run: Callable[..., Any] = kind.loss if what == "objective" else kind.make
    module = kind.origin.module or run.__module__  # a function's is made into a kind elsewhere
    doc = inspect.cleandoc(sys.modules[module].__doc__ or "")
    return {**facts(what, name), "settings": told, "sha256": kind.origin.sha256, "doc": doc}


def rewards_markdown() -> str:
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


def objectives_markdown() -> str:
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


def sources_markdown() -> str:
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
