"""What a stage is: one object that says what it reads, how that is cut into commit units, what it makes of a
unit, what all units came to, and what about that should alarm somebody.

Two runners run any stage: `in_run` inside a run folder (committed unit by unit, resumable) and `as_stream`
from rows to rows in constant memory. A stage knows of neither.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Generic, TypeVar

from msgspec import Struct

from selfrefine.records import Sample
from selfrefine.stages.alarms import Alarm
from selfrefine.stages.progress import Bar
from selfrefine.stages.session import RunSession
from selfrefine.sums import Sums

In = TypeVar("In")
Total = TypeVar("Total", bound=Sums)


class Stage(ABC, Generic[In, Total]):
    """`In` is a Task or a Sample; `Total` (`totals`) sums what the units came to."""

    name: str
    """Of its files in a round's folder: NAME.jsonl and NAME.json."""
    title: str
    """Of its bar, and of its events."""
    totals: ClassVar[type[Sums]]
    summaries: ClassVar[type[Struct]]

    @abstractmethod
    def inputs(self, session: RunSession) -> Sequence[In]:
        """In a run: the frozen or committed rows it reads. Sets the engine's policy where it samples."""

    @abstractmethod
    def units(self, rows: Iterable[In]) -> Iterator[list[In]]:
        """The input in commit units, decided by the rows alone. Streams."""

    def resumed(self, rows: Iterator[Sample]) -> None:
        """Told of the rows that an earlier process committed; for a stage that decides from what there is."""

    @abstractmethod
    def make(self, unit: Sequence[In], bar: Bar) -> tuple[list[Sample], Total]:
        """The rows of one unit, and what they came to."""

    @abstractmethod
    def summary(self, total: Total) -> Struct:
        """What all units came to: NAME.json, --summary-json, the line at the end."""

    def alarms(self, total: Total) -> list[Alarm]:
        return []

    def early(self, total: Total) -> list[Alarm]:
        """Those that are plain before the end; asked after each unit, of the units of this process so far."""
        return []

    def expected(self, rows: Sequence[In]) -> int | None:
        """Rows that its bar counts to."""
        return len(rows)
