"""From a plan to what the round's stages work with: settings, weights of tasks, a context to sample in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from selfrefine.config import Config
from selfrefine.records import Task
from selfrefine.reflection.findings import Plan
from selfrefine.reflection.mixture import weigher
from selfrefine.steps.in_context import Context

OWN = ("reweight", "hint", "few-shot", "stop")
"""Kinds whose settings are no keys of the configuration."""


def configured(config: Config, plan: Plan) -> Config:
    """The run's configuration with the plan's settings. Raises: msgspec.ValidationError for a plan that was
    written by something else.
    """
    table: dict[str, Any] = msgspec.to_builtins(config)
    for action in plan.actions:
        if action.kind not in OWN:
            for key, value in action.settings.items():
                place = table
                *parents, last = key.split(".")
                for parent in parents:
                    place = place[parent]
                place[last] = value
    return msgspec.convert(table, Config)


def weights(plan: Plan) -> Callable[[Task], float] | None:
    """How to draw the round's tasks; None where nothing was planned."""
    own = next((action for action in plan.actions if action.kind == "reweight"), None)
    return None if own is None else weigher(own.settings)


def context(plan: Plan) -> Context | None:
    """What to sample the round's answers with."""
    own = next((action for action in plan.actions if action.kind in ("hint", "few-shot")), None)
    return None if own is None else msgspec.convert({"kind": own.kind, **own.settings}, Context)


def stops(plan: Plan) -> str | None:
    """Why the run should stop here."""
    return next((action.reason for action in plan.actions if action.kind == "stop"), None)
