"""Everything that can go wrong on purpose, as a flat tree. Each leaf owns an exit code.

    SelfrefineError
    ├── UsageError            2   flags that contradict each other
    ├── ConfigError           3   configuration, prompt template, adapter of another model
    ├── DataError             4   input rows, tasks, rewards that cannot be computed
    ├── RunFolderError        5   exists, locked, differs, damaged, disk full
    ├── EngineError           6   a model that cannot be found, loaded or run
    ├── TrainingError         7   non-finite loss
    ├── NothingToLearnError   8   no sample is worth training on
    ├── GateNotMetError       9   --require-improvement and there was none
    └── Interrupted     130/143   SIGINT / SIGTERM, after the running batch was committed

Whatever is not in this tree is a bug: exit code 1 and a traceback.
A message is one or two lines: what, where (file:line or row id), and how to mend it.
"""

from __future__ import annotations

from typing import ClassVar


class SelfrefineError(Exception):
    """Base of every error that is the user's to mend."""

    exit_code: ClassVar[int] = 1


class UsageError(SelfrefineError):
    exit_code = 2


class ConfigError(SelfrefineError):
    exit_code = 3


class DataError(SelfrefineError):
    exit_code = 4


class RunFolderError(SelfrefineError):
    exit_code = 5


class EngineError(SelfrefineError):
    exit_code = 6


class TrainingError(SelfrefineError):
    exit_code = 7


class NothingToLearnError(SelfrefineError):
    exit_code = 8


class NothingSelectedError(NothingToLearnError):
    """A selection came out empty; `counts` say what became of its rows."""

    def __init__(self, message: str, counts: dict[str, int]) -> None:
        super().__init__(message)
        self.counts = counts


class GateNotMetError(SelfrefineError):
    exit_code = 9


class Interrupted(SelfrefineError):
    """A signal arrived; the running batch was committed first. `signum` decides the exit code."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
