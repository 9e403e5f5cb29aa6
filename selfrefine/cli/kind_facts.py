"""What rewards and objectives say of themselves: `ls` and `show`, and the tables of the docs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from selfrefine.fields import Setting, settings_of
from selfrefine.registry import registry
from selfrefine.rewards.base import PassAt


def settings(what: str, kind: Any) -> list[Setting]:
    """A kind's own settings, under the keys they have in a configuration."""
    structs: list[type[Struct]] = [kind.settings, *([PassAt] if what == "reward" else [])]
    return [setting for struct in structs for setting in settings_of(struct, f"{what}.{kind.name}.")]


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
        "something to show its teacher": getattr(kind, "teacher", None) is not None,
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
