"""Making a run folder and coming back to one: splits frozen, prompts copied, drift refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from selfrefine import audit, manifest, prompts
from selfrefine.cli.common import RUNS_DIR
from selfrefine.config import Config, Settings
from selfrefine.engines.base import Engine
from selfrefine.errors import ConfigError, RunFolderError
from selfrefine.manifest import EngineFacts
from selfrefine.records import RunManifest, Task
from selfrefine.rundir import Run, new_path, sha256_texts
from selfrefine.tasks import load
from selfrefine.tasks.base import TaskOptions
from selfrefine.tasks.splits import check_disjoint, dedupe, split


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
    if path.name != name:
        return new_path(path.parent, path.name)
    return new_path(RUNS_DIR, name)


def create_run(name: str, settings: Settings, engine: Engine) -> Run:
    """Raises: RunFolderError (exists), DataError (tasks), ConfigError (no source, templates)."""
    path = run_path(name)
    splits = make_splits(settings.config)
    made = manifest.build(path.name, sys.argv, settings, engine_facts(engine))
    return Run.create(path, made, splits, run_prompts(settings.config))


def run_prompts(config: Config) -> dict[str, str]:
    """The templates a run uses, by the file name it keeps them under."""
    return {
        "critique.md": prompts.load(config.critique.critique_prompt, "critique").source,
        "revise.md": prompts.load(config.critique.revise_prompt, "revise").source,
    }


def make_splits(config: Config) -> dict[str, list[Task]]:
    """train, gate and test, disjoint by id and by prompt. Raises: ConfigError, DataError."""
    own = config.tasks
    if not own.source:
        raise ConfigError("no tasks: name a source with --tasks (`selfrefine tasks` lists the kinds)")
    gate = 0 if own.gate_file else own.gate
    test = 0 if own.test_file else own.test
    parts = split(load(own.source, task_options(config)), config.seed, gate, test, own.train)
    splits = {"train": list(parts.train), "gate": list(parts.gate), "test": list(parts.test)}
    for name, file in (("gate", own.gate_file), ("test", own.test_file)):
        if file:
            splits[name] = dedupe(load(file, task_options(config, whole=True)))[0]
    check_disjoint(splits["train"], splits["gate"], splits["test"])
    if not splits["gate"] and config.cycle.gate != "off":
        raise ConfigError("there are no gate tasks to measure with: give --gate, or cycle.gate=off")
    return splits


def task_options(config: Config, *, whole: bool = False) -> TaskOptions:
    own = config.tasks
    return TaskOptions(
        n=None if whole else own.n,
        seed=config.seed,
        template=own.template,
        suffix=own.suffix,
        prompt_field=own.prompt_field,
        reference_field=own.reference_field,
        settings={} if whole else own.settings,
    )


def come_back(run: Run, settings: Settings, engine: Engine, *, allow_drift: bool) -> None:
    """Refuse to go on when anything that decides the outcome differs; record it when that is allowed.

    Raises: RunFolderError naming what differs.
    """
    now = _now(run.manifest, settings, engine_facts(engine))
    differs = audit.drift(run.manifest, now)
    if not differs:
        return
    if not allow_drift:
        shown = "\n".join(f"  {line}" for line in differs[:8])
        raise RunFolderError(
            f"{run.path} was made otherwise:\n{shown}\nuse the settings of the run, start another run, or go on "
            "all the same with --allow-drift"
        )
    run.events.append("drift", differs=differs)


def _now(old: RunManifest, settings: Settings, facts: EngineFacts) -> RunManifest:
    """The manifest this command would have made; the frozen tasks are the run's own and not made again."""
    made: dict[str, Any] = {
        "tasks": old.tasks,
        "prompts": sha256_texts(run_prompts(settings.config)),
        "git": old.git,
    }
    import msgspec

    return msgspec.structs.replace(manifest.build(old.name, sys.argv, settings, facts), **made)
