"""Making a run folder and coming back to one: splits frozen, prompts copied, drift refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from selfrefine.cli.common import RUNS_DIR
from selfrefine.errors import Interrupted, RunFolderError, SelfrefineError
from selfrefine.layers import Settings
from selfrefine.objectives.fit import check_rows
from selfrefine.registry import files_used, plugins_used
from selfrefine.runfolder import audit, manifest
from selfrefine.runfolder.run import Run, new_path, sha256_texts
from selfrefine.runfolder.summaries import RunManifest
from selfrefine.stages.prepare import make_splits, run_prompts
from selfrefine.stages.session import RunSession, Session
from selfrefine.stages.settings import check_method
from selfrefine.steps.scoring import check_rewards


def run_path(name: str) -> Path:
    """Where the run of that name or path is or would be made. Raises: RunFolderError for a bad name."""
    path = Path(name)
    if path.name == name:
        return new_path(RUNS_DIR, name)
    if ".." in path.parts:
        raise RunFolderError(f"{name[:200]!r}: '..' leads out of where runs are kept; give the whole path")
    return new_path(path.parent, path.name)


def create_run(name: str, settings: Settings, session: Session) -> Run:
    """Raises: RunFolderError (exists), DataError (tasks), ConfigError (source, rewards, objective …)."""
    path = run_path(name)
    check_rows(settings.config.objective.name, settings.config.select)
    check_method(settings.config)
    check_rewards(settings.config, session.engine)  # refused now, not when the first stage finds no way on
    splits = make_splits(settings.config, session.reporter.say)
    return Run.create(path, _manifest(path.name, settings, session), splits, run_prompts(settings.config))


def come_back(session: RunSession, settings: Settings, *, allow_drift: bool) -> None:
    """Refuse to go on when anything that decides the outcome differs; record it when that is allowed.

    Raises: RunFolderError naming what differs; ConfigError for settings that contradict each other.
    """
    run = session.run
    check_method(settings.config)
    check_rewards(settings.config, session.engine)
    differs = differences(run, settings, session)
    if not differs:
        return
    if not allow_drift:
        shown = "\n".join(f"  {line}" for line in differs[:8])
        raise RunFolderError(
            f"{run.path} was made otherwise:\n{shown}\n"
            "use the settings of the run, start another run, or go on all the same with --allow-drift"
        )
    run.events.append("drift", differs=differs)


def differences(run: Run, settings: Settings, session: Session) -> list[str]:
    """A sentence for each thing that this command would do otherwise than the run was made."""
    now = _manifest(run.manifest.name, settings, session, run.manifest)
    # The frozen tasks are the run's own and not made again.
    own: dict[str, Any] = {
        "tasks": run.manifest.tasks,
        "prompts": sha256_texts(run_prompts(settings.config)),
        "git": run.manifest.git,
    }
    return audit.drift(run.manifest, msgspec.structs.replace(now, **own))


def same_or_free(path: Path, settings: Settings, session: Session) -> Path:
    """`path`, or path-2, path-3, …: the first that is no run yet or was made as this command says."""
    candidate, number = path, 1
    while candidate.exists() and differences(Run.open(candidate), settings, session):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def _manifest(name: str, settings: Settings, session: Session, old: RunManifest | None = None) -> RunManifest:
    """What decides the outcome, but for tasks and prompts, which `Run.create` adds.

    Models take over the date of an `old` manifest, where their templates have one: a run keeps its date.
    """
    own = settings.config
    apart = own.critique.passes > 0 and session.critic is not session.engine
    session.engine.keep_date(old.model.get("template_date") if old else None)
    if apart:
        session.critic.keep_date(old.critic.get("template_date") if old else None)
    return manifest.build(
        name,
        sys.argv,
        settings,
        session.engine.facts(),
        critic=session.critic.facts().model if apart else {},
        code=files_used(own) | plugins_used(own),
    )


@contextmanager
def recorded(run: Run) -> Iterator[None]:
    """How this process's work on the run ends, in its events: `runs ls` says it. An end writes its own."""
    try:
        yield
    except Interrupted as stopped:
        run.events.append("stopped", signal=stopped.signum)
        raise
    except SelfrefineError as error:
        run.events.append("failed", code=error.exit_code, why=str(error))
        raise
    except Exception as bug:
        run.events.append("failed", code=1, why=f"{type(bug).__name__}: {bug}")
        raise
