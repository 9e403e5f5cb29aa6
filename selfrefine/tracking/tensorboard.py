"""TensorBoard, through tensorboardX: event files in DIR/RUN. Their scalars are float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfrefine.tracking.base import About, TrackerKind, inert, needed
from selfrefine.tracking.points import Point

OURS = ".selfrefine"
"""How our event files end: those of other programs in the folder are left alone."""


class TensorBoard:
    """Through the writer below `SummaryWriter`, whose thread would still hold points when `flush` returns."""

    def __init__(self, place: Path, name: str, about: About) -> None:
        self._proto: Any = needed("tensorboardX.proto.event_pb2", "tensorboard")
        self._summary: Any = needed("tensorboardX.summary", "tensorboard")
        writers = needed("tensorboardX.event_file_writer", "tensorboard")
        folder = place.resolve() / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"events.out.tfevents.*{OURS}"):
            old.unlink()
        self._writer: Any = writers.EventsWriter(str(folder / "events"), OURS)
        self._settings = "\n".join(f"    {inert(key)} = {inert(str(value))}" for key, value in about.items())

    def log(self, points: Sequence[Point]) -> None:
        if self._settings and points:
            self._write(self._summary.text("settings", self._settings), 0, min(p.time for p in points))
            self._settings = ""
        for point in points:
            if isinstance(point.value, str):
                # Indented, it is a code block for TensorBoard's Markdown.
                made = self._summary.text(point.series, f"    {inert(point.value)}")
            else:
                made = self._summary.scalar(point.series, point.value)
            self._write(made, point.step, point.time)
        self._writer.flush()

    def _write(self, summary: Any, step: int, time: float) -> None:
        self._writer.write_event(self._proto.Event(wall_time=time, step=step, summary=summary))

    def close(self) -> None:
        self._writer.close()


KIND = TrackerKind(
    name="tensorboard",
    about="TensorBoard event files, written by tensorboardX",
    opens=TensorBoard,
    look="tensorboard --logdir {dir}",
)
