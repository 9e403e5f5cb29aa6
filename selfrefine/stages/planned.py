"""A round under its plan: its stages work with the run's configuration as the round's plan.json changes it.

What is measured (round 0, the gate, the end) is never changed: policies are compared under equal conditions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from selfrefine.reflection import applied
from selfrefine.reflection.findings import PLAN_FILE, Plan
from selfrefine.runfolder.jsonl import read_json
from selfrefine.runfolder.round import RoundDir
from selfrefine.stages.session import RunSession

T = TypeVar("T")


def plan_of(folder: RoundDir) -> Plan | None:
    """A round's plan, once its reflection is done. Raises: RunFolderError where it is damaged."""
    return read_json(folder.path / PLAN_FILE, Plan) if folder.has("reflect") else None


@contextmanager
def following(session: RunSession, k: int) -> Iterator[None]:
    """Work with round k's configuration. A plan that only suggests changes nothing."""
    plan = plan_of(session.run.round(k))
    if plan is None or plan.mode != "auto":
        yield
        return
    own = session.config
    session.config, session.plan = applied.configured(own, plan), plan
    try:
        yield
    finally:
        session.config, session.plan = own, None


def planned(stage: Callable[[RunSession, int], T]) -> Callable[[RunSession, int], T]:
    """A stage that follows the round's plan, in `cycle` and by hand alike."""

    @functools.wraps(stage)
    def with_plan(session: RunSession, k: int) -> T:
        with following(session, k):
            return stage(session, k)

    return with_plan


def planned_stop(session: RunSession, k: int) -> str | None:
    """Why the plan of round k ends the run; None where it does not."""
    plan = plan_of(session.run.round(k)) if session.config.reflect.plan == "auto" else None
    why = None if plan is None or plan.mode != "auto" else applied.stops(plan)
    return None if why is None else f"the plan of round {k} says stop: {why}"
