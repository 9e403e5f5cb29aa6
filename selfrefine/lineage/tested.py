"""What an accepted adapter came to on the test tasks: read when its run has ended, so not in its own card."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from selfrefine.lineage.chain import Lineage
from selfrefine.reflection.overview import test_gain
from selfrefine.runfolder.run import MANIFEST, Run
from selfrefine.stats import Difference, Interval


class Tested(Struct, frozen=True, kw_only=True):
    """The accepted policy on the test tasks: known when the run has ended, after the card was written."""

    start: Interval | None
    end: Interval
    gain: Difference | None
    reads: int
    """How often the test split had been read."""


def of_adapter(adapter: Path, lineage: Lineage) -> Tested | None:
    """The test figures of the adapter in its run's folder; None elsewhere, before the run has ended, and
    where another round's policy was measured. Raises: RunFolderError, DataError."""
    folder = adapter.resolve().parent
    if not (folder.parent / MANIFEST).is_file():
        return None
    run = Run.open(folder.parent)
    final = run.final_summary()
    if final is None or final.policy != lineage.policy or final.accepted_round != lineage.round:
        return None
    start = run.summary(0).measures.get("test")
    return Tested(start=start, end=final.test, gain=test_gain(run), reads=final.test_reads)
