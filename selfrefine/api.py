"""What `import selfrefine` gives: finished runs as plain objects, the loop, and rewards. See docs/python.md.

Everything raises the errors of `selfrefine.errors`, whose text says what to do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from selfrefine.config import Config
from selfrefine.errors import DataError, RunFolderError, UsageError
from selfrefine.layers import flatten, resolve
from selfrefine.records import Reward, Sample, Task, decode_sample, encode
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import Run, locate, new_name
from selfrefine.runfolder.summaries import FinalSummary, GateDecision, RoundSummary, RunManifest
from selfrefine.words import count

T = TypeVar("T")
RUNS_DIR = Path("runs")


class Rows(list[T]):
    """A list of rows that becomes a table where one is wanted. Nested fields stay nested."""

    def to_arrow(self) -> Any:
        """A `pyarrow.Table`. A column whose values are of several kinds is JSON text.

        Raises: UsageError where pyarrow is not installed.
        """
        arrow = _installed("pyarrow", "to_arrow")

        def column(values: list[Any]) -> Any:
            try:
                return arrow.array(values)
            except arrow.ArrowException:
                return arrow.array([None if v is None else msgspec.json.encode(v).decode() for v in values])

        return arrow.table({name: column(values) for name, values in self._columns().items()})

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`, a row each. Raises: UsageError where pandas is not installed."""
        return _installed("pandas", "to_pandas").DataFrame(self._columns())

    def _columns(self) -> dict[str, list[Any]]:
        rows = [
            msgspec.json.decode(encode(row)) if isinstance(row, Sample | Task) else msgspec.to_builtins(row)
            for row in self
        ]
        return {
            name: [row.get(name) for row in rows]
            for name in dict.fromkeys(key for row in rows for key in row)
        }


class Round:
    """A committed round. `index` 0 is the measurement of the policy that the run began with."""

    def __init__(self, folder: RoundDir) -> None:
        self._folder = folder
        self.index = folder.index
        self.summary: RoundSummary = folder.summary()

    @property
    def decision(self) -> GateDecision | None:
        """Of the gate: `outcome`, `difference`, `lo`, `hi`, `p_value`, `reason` …; None for round 0."""
        return self.summary.gate

    @property
    def stages(self) -> list[str]:
        """What `samples` can be asked for, sorted."""
        return self._folder.stages()

    def samples(self, stage: str = "reward") -> Rows[Sample]:
        """The rows of a stage's file, checked against the hash they were committed with.

        Raises: RunFolderError (no such stage, changed since), DataError (a row that does not decode).
        """
        return _samples(self._folder, stage)


class Final:
    """What a run ended with: the accepted policy on the test tasks, and the rows that it was measured on."""

    def __init__(self, folder: RoundDir, summary: FinalSummary) -> None:
        self._folder = folder
        self.summary = summary

    def samples(self, stage: str = "test") -> Rows[Sample]:
        return _samples(self._folder, stage)


class OpenedRun:
    """A run folder, read as it is now; nothing here writes to it or locks it."""

    def __init__(self, path: Path) -> None:
        self._run = Run.open(path)
        self.path = path
        self.name = self._run.name

    def __repr__(self) -> str:
        return f"OpenedRun({str(self.path)!r}, {count(max(0, self._run.next_round() - 1), 'round')})"

    @property
    def manifest(self) -> RunManifest:
        """What was asked and by whom it was decided: `config`, `model`, `packages`, `seeds` …"""
        return self._run.manifest

    @property
    def rounds(self) -> list[Round]:
        """The committed rounds, from 0."""
        return [Round(folder) for folder in self._run.rounds()]

    @property
    def final(self) -> Final | None:
        """None as long as the run has not ended."""
        summary = self._run.final_summary()
        return None if summary is None else Final(self._run.final, summary)

    @property
    def events(self) -> Rows[dict[str, Any]]:
        """What happened, with clock times: `time`, `kind`, and what the kind has."""
        return Rows(self._run.events.read())

    def samples(self, *, round: int | Literal["final"] = 0, stage: str) -> Rows[Sample]:
        """As `Round.samples`, also of a round in progress, as far as its stages have finished."""
        if round != "final" and (not isinstance(round, int) or round < 0):
            raise UsageError(f"round {round!r}: use a number, or 'final'")
        return _samples(self._run.final if round == "final" else self._run.round(round), stage)

    def tasks(self, split: Literal["train", "gate", "test"]) -> Rows[Task]:
        """A frozen split. Raises: RunFolderError when it is missing or was changed."""
        return Rows(self._run.tasks(split))


def open_run(path: str | Path) -> OpenedRun:
    """The run of that folder, or of that name in `runs/`. Raises: RunFolderError where there is none."""
    return OpenedRun(locate(RUNS_DIR, str(path)))


def run_cycle(config: Config | Mapping[str, Any] | str | Path, name: str | None = None) -> OpenedRun:
    """`selfrefine cycle` in this process, from the main thread: the whole loop; the run it made or continued.

    `config` is a table of settings (nested, or with dotted keys), a TOML file, the name of a shipped one, or
    a `Config`, of which counts what differs from the defaults.
    `name` is a run's name or folder: continued where it exists, else made; a free name of `runs/` without it.
    A loop that found nothing to learn from is returned too; its last event of kind "end" says so.

    Raises: ConfigError, DataError, RunFolderError, EngineError, TrainingError, Interrupted; UsageError from
    another thread than the main one, which alone can be told of signals.
    """
    from selfrefine.cli import common, cycle

    if threading.current_thread() is not threading.main_thread():
        raise UsageError("run_cycle must be called from the main thread, because it handles signals")

    if isinstance(config, Config):
        # Its objective's own settings, where they stand in it, are defaults too.
        named = resolve([("default", {"objective.name": config.objective.name})]).config
        usual = flatten(msgspec.to_builtins(named))
        config = {key: v for key, v in flatten(msgspec.to_builtins(config)).items() if v != usual.get(key)}
    file, given = (None, flatten(config)) if isinstance(config, Mapping) else (str(config), {})
    with common.reporting() as reporter:
        name = name or new_name(RUNS_DIR)
        told = cycle.loop(name, file, None, given, reporter, or_new=False, drift=False, trust=False)
    return open_run(told["run"])


def reward(name: str, samples: Iterable[Sample | Mapping[str, Any]], **settings: Any) -> list[Reward]:
    """The samples' rewards, in order: `value` in [0, 1], or null with the reason in `error`.

    `name` is one of `selfrefine rewards ls`, or `path/to/file.py:function`; `settings` are its own.
    Samples are those of a run, or mappings in the shape of docs/records.md.
    Raises: ConfigError, also for a reward that asks a model; DataError for a mapping that is no sample;
    UsageError for a function in place of a name: what is scored says by which file it was.
    """
    from selfrefine.rewards.base import RewardOptions
    from selfrefine.steps.reward import build, parse_spec, score

    if not isinstance(name, str):
        raise UsageError("reward() takes a name; name your own function by its file: mine.py:function")
    spec = parse_spec(name)
    scorers = build([spec], RewardOptions(settings={spec.name: settings} if settings else {}))
    rows = [_sample(row, f"samples:{number}") for number, row in enumerate(samples, 1)]
    return [row.rewards[-1] for row in score(rows, scorers)]


def _sample(row: Sample | Mapping[str, Any], where: str) -> Sample:
    if isinstance(row, Sample):
        return row
    try:
        line = msgspec.json.encode(row)
    except (TypeError, ValueError, RecursionError) as error:  # half a surrogate pair is a ValueError
        raise DataError(f"{where}: cannot be written as JSON: {error}") from None
    return decode_sample(line, where)


def _samples(folder: RoundDir, stage: str) -> Rows[Sample]:
    if not folder.has(stage):
        known = ", ".join(folder.stages()) or "none"
        raise RunFolderError(f"{folder.path} has no rows of {stage!r}; available: {known}")
    return Rows(folder.samples(stage))


def _installed(package: str, method: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{method}() needs {package}, which is not installed: pip install {package}"
        ) from error
