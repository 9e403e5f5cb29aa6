"""MLflow: its SQLite file DIR/mlflow.db, experiment `selfrefine`. Texts are tags: `decision.round-002`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfrefine.tracking.base import PROJECT, About, TrackerKind, inert, needed
from selfrefine.tracking.points import Point, name

MARK = "selfrefine.run"
METRICS, PARAMS = 1000, 100
"""How many of them MLflow takes at once."""


class Mlflow:
    def __init__(self, place: Path, run: str, about: About) -> None:
        # Read when it is imported.
        os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        package = needed("mlflow", "mlflow")
        needed("sqlalchemy", "mlflow")
        folder = place.resolve()
        self._entities: Any = package.entities
        self._client: Any = package.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(PROJECT, artifact_location=(folder / "artifacts").as_uri())
        )
        for old in self._client.search_runs([experiment], f"tags.`{MARK}` = '{run}'", max_results=1000):
            self._client.delete_run(old.info.run_id)  # `mlflow gc` takes it out of the file
        made = self._client.create_run(experiment, tags={MARK: run}, run_name=run)
        self._id = made.info.run_id
        self._texts = Counter[tuple[str, int]]()
        asked = [
            self._entities.Param(".".join(map(name, k.split("."))), inert(str(v))) for k, v in about.items()
        ]
        for i in range(0, len(asked), PARAMS):
            self._client.log_batch(self._id, params=asked[i : i + PARAMS])

    def log(self, points: Sequence[Point]) -> None:
        metric = self._entities.Metric
        numbers = [
            metric(p.series, p.value, round(p.time * 1000), p.step)
            for p in points
            if not isinstance(p.value, str)
        ]
        for i in range(0, len(numbers), METRICS):
            self._client.log_batch(self._id, metrics=numbers[i : i + METRICS])
        for point in points:
            if isinstance(point.value, str):
                self._texts[point.series, point.step] += 1
                number = self._texts[point.series, point.step]
                more = f".{number}" if number > 1 else ""
                tag = f"{point.series}.round-{point.step:03d}{more}"
                self._client.set_tag(self._id, tag, inert(point.value))

    def close(self) -> None:
        self._client.set_terminated(self._id)


KIND = TrackerKind(
    name="mlflow",
    about="MLflow's local SQLite file",
    opens=Mlflow,
    look="mlflow ui --backend-store-uri sqlite:///{dir}/mlflow.db",
)
