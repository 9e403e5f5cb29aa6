"""Making a run folder and coming back to one: splits frozen, prompts copied, drift refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from selfrefine.cli.common import RUNS_DIR
from selfrefine.config import Settings
from selfrefine.engines.base import Engine
from selfrefine.errors import RunFolderError
from selfrefine.objectives.fit import check_rows
from selfrefine.records import RunManifest
from selfrefine.runfolder import audit, manifest
from selfrefine.runfolder.manifest import EngineFacts
from selfrefine.runfolder.run import Run, new_path, sha256_texts
from selfrefine.stages.prepare import make_splits, run_prompts
from selfrefine.stages.work import build_both


def engine_facts(engine: Engine) -> EngineFacts:
    """What the manifest says of the engine."""
    describe = getattr(engine, "facts", None)
    if describe is not None:
        return describe()  # type: ignore[no-any-return]
    return EngineFacts(
        model={"id": engine.signature, "weights_sha256": engine.policy}, unit_tokens=engine.unit_tokens
    )


def run_path(name: str) -> Path:
    """Where the run of that name or path is or would be made. Raises: RunFolderError for a bad name."""
    path = Path(name)
    if path.name == name:
        return new_path(RUNS_DIR, name)
    if ".." in path.parts:
        raise RunFolderError(f"{name[:200]!r}: '..' leads out of where runs are kept; give the whole path")
    return new_path(path.parent, path.name)


def create_run(name: str, settings: Settings, engine: Engine) -> Run:
    """Raises: RunFolderError (exists), DataError (tasks), ConfigError (source, rewards, objective …)."""
    path = run_path(name)
    check_rows(settings.config.objective.name, settings.config.select)
    build_both(settings.config, engine)  # refused now, not when the first stage finds no way on
    splits = make_splits(settings.config)
    made = manifest.build(path.name, sys.argv, settings, engine_facts(engine))
    return Run.create(path, made, splits, run_prompts(settings.config))


def come_back(run: Run, settings: Settings, engine: Engine, *, allow_drift: bool) -> None:
    """Refuse to go on when anything that decides the outcome differs; record it when that is allowed.

    Raises: RunFolderError naming what differs.
    """
    differs = differences(run, settings, engine)
    if not differs:
        return
    if not allow_drift:
        shown = "\n".join(f"  {line}" for line in differs[:8])
        raise RunFolderError(
            f"{run.path} was made otherwise:\n{shown}\n"
            "use the settings of the run, start another run, or go on all the same with --allow-drift"
        )
    run.events.append("drift", differs=differs)


def differences(run: Run, settings: Settings, engine: Engine) -> list[str]:
    """A sentence for each thing that this command would do otherwise than the run was made."""
    return audit.drift(run.manifest, _now(run.manifest, settings, engine_facts(engine)))


def same_or_free(path: Path, settings: Settings, engine: Engine) -> Path:
    """`path`, or path-2, path-3, …: the first that is no run yet or was made as this command says."""
    candidate, number = path, 1
    while candidate.exists() and differences(Run.open(candidate), settings, engine):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def _now(old: RunManifest, settings: Settings, facts: EngineFacts) -> RunManifest:
    """The manifest this command would have made; the frozen tasks are the run's own and not made again."""
    made: dict[str, Any] = {
        "tasks": old.tasks,
        "prompts": sha256_texts(run_prompts(settings.config)),
        "git": old.git,
    }
    return msgspec.structs.replace(manifest.build(old.name, sys.argv, settings, facts), **made)
