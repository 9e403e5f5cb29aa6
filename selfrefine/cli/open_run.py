"""Making a run folder and coming back to one: splits frozen, prompts copied, drift refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from selfrefine.cli import checks
from selfrefine.cli.common import RUNS_DIR
from selfrefine.errors import Interrupted, RunFolderError, SelfrefineError
from selfrefine.layers import Settings
from selfrefine.registry import files_used, plugins_used
from selfrefine.runfolder import audit, manifest
from selfrefine.runfolder.run import Run, check_free, new_path, sha256_texts
from selfrefine.runfolder.summaries import RunManifest
from selfrefine.runfolder.whole import HISTORY_LOST, lost_history
from selfrefine.stages.prepare import make_splits, run_prompts
from selfrefine.stages.session import RunSession, Session
from selfrefine.steps.scoring import check_rewards
from selfrefine.words import count


def run_path(name: str) -> Path:
    """Where the run of that name or path is or would be made. Raises: RunFolderError for a bad name."""
    path = Path(name)
    if path.name == name:
        return new_path(RUNS_DIR, name)
    if ".." in path.parts:
        raise RunFolderError(f"{name[:200]!r}: a run's path has no '..'; give the full path")
    return new_path(path.parent, path.name)


def create_run(name: str, settings: Settings, session: Session, *, trains: bool = False) -> Run:
    """What is cheap to refuse is refused first, the tasks are read, and the model is loaded last.

    Raises: RunFolderError (exists), DataError (tasks), ConfigError (source, rewards, objective …);
    EngineError where it `trains` and the model cannot be trained.
    """
    path = run_path(name)
    check_free(path)
    checks.run(settings.config)
    splits = make_splits(settings.config, session.reporter.say)
    prompts = run_prompts(settings.config)
    if trains:
        session.engine.trainer()
    check_rewards(settings.config, session.engine)  # refused now, not when the first stage finds no way on
    return Run.create(path, _manifest(path.name, settings, session), splits, prompts)


def check_settings(run: Run, settings: Settings, *, allow_drift: bool) -> None:
    """The same for a run that is there: also that the settings are its own, before its model is loaded.

    Raises: RunFolderError naming each key with the run's value and this command's; ConfigError.
    """
    checks.run(settings.config)
    if not allow_drift:
        _refuse(run, known_differences(run, settings))


def known_differences(run: Run, settings: Settings) -> list[str]:
    """Of `differences`, those that are known without a model."""
    own, old = settings.config, run.manifest
    now = msgspec.structs.replace(
        old,
        config=msgspec.to_builtins(own),
        origins=settings.origins,
        packages=manifest.packages(),
        code=files_used(own) | plugins_used(own),
        prompts=sha256_texts(run_prompts(own)),
        threads=_threads(old),
    )
    return audit.drift(old, now)


def _threads(old: RunManifest) -> int:
    """Those that torch will take, as far as the environment says it: loading it takes seconds."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    known = old.packages.get("torch") and old.device == "cpu" and "MKL_NUM_THREADS" not in os.environ
    return int(said) if known and said.isdecimal() and int(said) else old.threads


def _refuse(run: Run, differs: list[str]) -> None:
    if not differs:
        return
    shown = differs[:8] + ([f"and {count(len(differs) - 8, 'other')}"] if len(differs) > 8 else [])
    threads = any(line.startswith("threads: ") for line in differs)
    ways = f"set OMP_NUM_THREADS={run.manifest.threads}, " if threads else "use the run's settings, "
    raise RunFolderError(
        f"{run.path} was made with other settings:\n"
        + "".join(f"  {line}\n" for line in shown)
        + f"{ways}start another run, or continue with --allow-drift (recorded)"
    )


def come_back(session: RunSession, settings: Settings, *, allow_drift: bool) -> None:
    """Refuse to go on when anything that decides the outcome differs; record it when that is allowed, and a
    history that was lost.

    Raises: RunFolderError naming what differs; ConfigError for settings that contradict each other.
    """
    run = session.run
    check_rewards(settings.config, session.engine)
    differs = differences(run, settings, session)
    if not allow_drift:
        _refuse(run, differs)
    if (lost := lost_history(run.path)) is not None:
        # A power cut does this too: events are not fsynced, so the run goes on.
        session.reporter.say(f"{run.path}: {lost}: what happened before is lost; going on without it")
        run.events.append(HISTORY_LOST, why=lost)
    if differs:
        run.events.append("drift", differs=differs)


def differs(run: Run, settings: Settings, session: Session) -> bool:
    """Whether this command would be refused on the run; its model is loaded only where nothing else tells.

    Raises: RunFolderError for a damaged run: nothing else tells, so it would be gone on with.
    """
    checks.run(settings.config)
    if known_differences(run, settings):
        return True
    run.check_whole()
    return bool(differences(run, settings, session))


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
