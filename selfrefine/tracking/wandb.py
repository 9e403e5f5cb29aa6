"""Weights & Biases, offline: a folder DIR/wandb/offline-run-… that `wandb sync` sends when you ask for it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfrefine.tracking.base import PROJECT, About, TrackerKind, inert, needed
from selfrefine.tracking.points import Point


class Wandb:
    def __init__(self, place: Path, name: str, about: About) -> None:
        os.environ |= {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
        package = needed("wandb", "wandb")
        folder = place.resolve()
        # The same run again has the same id, so that what was sent before is replaced, not doubled.
        id = hashlib.sha256(name.encode()).hexdigest()[:12]
        for old in (folder / "wandb").glob(f"offline-run-*-{id}"):
            shutil.rmtree(old)
        self._run: Any = package.init(
            mode="offline",
            dir=str(folder),
            project=PROJECT,
            name=name,
            id=id,
            config=dict(about),
            settings=package.Settings(
                console="off",
                disable_code=True,
                disable_git=True,
                save_code=False,
                silent=True,
                x_disable_stats=True,
                x_disable_meta=True,
            ),
        )
        self._run.define_metric("round")
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="round")
        self._run.define_metric("train/*", step_metric="step")

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            value = inert(point.value) if isinstance(point.value, str) else point.value
            self._run.log({point.series: value, point.axis: point.step, "_timestamp": point.time})

    def close(self) -> None:
        self._run.finish()


KIND = TrackerKind(
    name="wandb",
    about="Weights & Biases offline files",
    opens=Wandb,
    look="wandb sync {dir}/wandb/offline-run-* sends them to your account",
)
