"""Trackio: its SQLite file in DIR, project `selfrefine`. Written through its storage, since only that takes
the time of a point; its `init` would start a server's client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selfrefine.tracking.base import PROJECT, About, TrackerKind, inert, needed
from selfrefine.tracking.points import Point


class Trackio:
    def __init__(self, place: Path, name: str, about: About) -> None:
        # Read when the package is imported. No Space, no telemetry: this command sends nothing.
        os.environ["TRACKIO_DIR"] = str(place.resolve())
        os.environ |= {
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        for key in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
            os.environ.pop(key, None)
        self._storage: Any = needed("trackio.sqlite_storage", "trackio").SQLiteStorage
        self._run, self._id = name, f"{PROJECT}-{name}"
        self._config: dict[str, Any] | None = dict(about)
        self._storage.delete_run(PROJECT, name, run_id=self._id)

    def log(self, points: Sequence[Point]) -> None:
        if not points:
            return
        self._storage.bulk_log(
            project=PROJECT,
            run=self._run,
            run_id=self._id,
            metrics_list=[
                {p.series: inert(p.value) if isinstance(p.value, str) else p.value} for p in points
            ],
            steps=[p.step for p in points],
            timestamps=[datetime.fromtimestamp(p.time, UTC).isoformat() for p in points],
            config=self._config,
        )
        self._config = None

    def close(self) -> None:
        """Each call of `log` is a transaction of its own."""


KIND = TrackerKind(
    name="trackio",
    about="Trackio's local SQLite file",
    opens=Trackio,
    look=f"TRACKIO_DIR={{dir}} trackio show --project {PROJECT}",
)
