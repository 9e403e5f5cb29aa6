"""A stage in a run folder: committed unit by unit, going on where an earlier process died."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from selfrefine import records
from selfrefine.errors import RunFolderError
from selfrefine.runfolder.round import RoundDir
from selfrefine.stages.alarms import once
from selfrefine.stages.base import In, Stage, Total
from selfrefine.stages.session import Place, RunSession


def place_of(folder: RoundDir) -> Place:
    """The round's number, or "final"."""
    return "final" if folder.path.name == "final" else folder.index


def in_run(stage: Stage[In, Total], session: RunSession, folder: RoundDir) -> Struct:
    """NAME.jsonl and NAME.json in `folder`, made where they are not there yet; returns the stored summary.

    Raises: RunFolderError, Interrupted, and what the stage raises.
    """
    if not folder.has(stage.name):
        _make(stage, session, folder)
    found = folder.stage_summary(stage.name, stage.summaries)
    if found is None:
        rows, told = folder.file(stage.name), folder.summary_file(stage.name)
        raise RunFolderError(f"{told} is missing: delete {rows} to redo the stage")
    return found


def _make(stage: Stage[In, Total], session: RunSession, folder: RoundDir) -> None:
    rows = stage.inputs(session)
    place, reporter = place_of(folder), session.reporter
    where = place if place == "final" else f"round {place}"
    plan = list(stage.units(rows))
    total: list[Any] = []
    so_far = stage.totals()
    ring = once(lambda found: session.ring(place, stage.title, found))
    with (
        session.timed(place, stage.title),
        reporter.stage(f"{where} {stage.title}", stage.expected(rows)) as bar,
    ):

        def work(unit: list[In]) -> tuple[list[bytes], bytes]:
            nonlocal so_far
            made, part = stage.make(unit, bar)
            so_far += part
            ring(stage.early(so_far))  # type: ignore[arg-type]
            return [records.encode(row) for row in made], msgspec.json.encode(part)

        def summarise(notes: Sequence[bytes]) -> bytes:
            # From the notes, also where this process made all units: the same numbers in the same order.
            parts = (msgspec.json.decode(note, type=stage.totals) for note in notes)
            total.append(sum(parts, start=stage.totals()))
            return formatted(stage.summary(total[0]))

        folder.stage(
            stage.name,
            plan,
            work,
            should_stop=reporter.check,
            resumed=lambda committed: stage.resumed(
                records.decode_sample(line, f"{stage.name}.jsonl.part") for line in committed
            ),
            summarise=summarise,
        )
    ring(stage.alarms(total[0]))


def formatted(summary: msgspec.Struct) -> bytes:
    """As it stands in a file: for people and for diff."""
    return msgspec.json.format(msgspec.json.encode(summary, order="deterministic")) + b"\n"
