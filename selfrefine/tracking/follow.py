"""Hand a run's points to a tracker: all that there are, and, following, those that come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from selfrefine.runfolder.audit import state
from selfrefine.runfolder.run import Run
from selfrefine.tracking.base import TrackerKind, claimed
from selfrefine.tracking.points import Key, Point
from selfrefine.tracking.reading import about, points
from selfrefine.words import count

EVERY_S = 2.0
"""Between two looks at a run that goes on."""
_STEP_S = 0.1


def track(
    run: Run,
    kind: TrackerKind,
    place: Path,
    follow: bool,
    say: Callable[[str], object],
    check: Callable[[], object],
    every_s: float = EVERY_S,
) -> int:
    """The number of points handed over. `follow`: until the run has ended. `check` stops it by raising.

    A run whose process died is waited for: the same command continues it. Raises: ConfigError (the package is
    missing), RunFolderError, DataError.
    """
    with claimed(place, run):
        tracker = kind.opens(place, run.name, about(run))
        try:
            return _handed(run, tracker.log, follow, say, check, every_s)
        finally:
            tracker.close()


def _handed(
    run: Run,
    log: Callable[[Sequence[Point]], object],
    follow: bool,
    say: Callable[[str], object],
    check: Callable[[], object],
    every_s: float,
) -> int:
    sent: set[Key] = set()
    last = ""
    while True:
        now = state(run)  # before the points are read: what comes after this look, the next one finds
        if new := [point for point in points(run) if point.key not in sent]:
            log(new)
            sent |= {point.key for point in new}
            if follow:
                say(f"{count(len(new), 'new point')}; rounds committed: {max(0, run.next_round() - 1):,}")
        if not follow or now.startswith("ended"):
            return len(sent)
        if now not in (last, "running"):
            say(f"the run is not running ({now}); waiting for it to go on, Ctrl-C stops this command")
        last = now
        until = time.monotonic() + every_s
        check()
        while time.monotonic() < until:
            time.sleep(min(_STEP_S, every_s))
            check()
