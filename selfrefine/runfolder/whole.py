"""Whether a run's folder still holds what its later parts say was there. Reads summaries, never rows.

What is made next depends on all rounds before it, so nothing is written to a run that lost one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from selfrefine.errors import RunFolderError
from selfrefine.runfolder.jsonl import read_json
from selfrefine.runfolder.round import ROUND_FILE, RoundDir, check_link, first_open, round_name
from selfrefine.runfolder.summaries import FinalSummary

EVENTS = "events.jsonl"
HISTORY_LOST = "history-lost"
"""Kind of the event that a new events.jsonl begins with, where the old one was lost."""


def lost_round(run: Path) -> str | None:
    """A sentence where a round is gone that a later one, or a measured end, came after."""
    claims = dict(_claims(run))
    missing = first_open(run)  # after the claims: a round that is committed in between is no lost one
    last = max(claims.values(), default=-1)
    if last < missing:
        return None
    return f"{round_name(missing)}/{ROUND_FILE} is missing, but round {last} was committed"


def refuse(run: Path) -> None:
    """Raises: RunFolderError where a round is lost, a summary cannot be read, or `adapter` is no link."""
    if (lost := lost_round(run)) is not None:
        missing = first_open(run)
        later = [name for name, number in sorted(_claims(run)) if number >= missing]
        rounds = [name for name in later if name.startswith("round-")]
        ends = [name for name in later if name not in rounds]
        if len(rounds) > 2:
            rounds = [f"{rounds[0]} to {rounds[-1]}"]
        raise RunFolderError(
            f"{run} is damaged: {lost}\n"
            f"put {round_name(missing)} back from a copy; or delete what came later "
            f"({', '.join([*rounds, *ends])}), and the same command does round {missing} again"
        )
    for index in range(first_open(run)):
        RoundDir(run / round_name(index)).summary()
    read_json(run / "final" / "summary.json", FinalSummary)
    check_link(run)


def lost_history(run: Path) -> str | None:
    """A sentence where rounds were begun and no event tells of them.

    The first event is written before a round's folder is made: a run without either was only created.
    """
    begun = min((path.name for path in run.glob("round-*") if path.is_dir()), default=None)
    if begun is None or _has_an_event(run / EVENTS):
        return None
    what = "has no event" if (run / EVENTS).is_file() else "is missing"
    return f"{EVENTS} {what}, but {begun} was begun"


def _has_an_event(events: Path) -> bool:
    """Whether a line was ever finished there, whatever it says."""
    with suppress(OSError), events.open("rb") as stream:
        return stream.readline().endswith(b"\n")
    return False


def _claims(run: Path) -> Iterator[tuple[str, int]]:
    """Folders that come after committed rounds, each with the last round that was there when it was made."""
    for path in run.glob(f"round-*/{ROUND_FILE}"):
        name = path.parent.name
        number = name.removeprefix("round-")
        if number.isdecimal() and name == round_name(int(number)):
            yield name, int(number)
    for path in run.glob("final*/summary.json"):
        with suppress(RunFolderError):  # a damaged one is named as such
            if (end := read_json(path, FinalSummary)) is not None:
                yield path.parent.name, max(end.after_round, end.accepted_round)
