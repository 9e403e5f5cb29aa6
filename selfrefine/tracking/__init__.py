"""Trackers: programs that draw a run's figures. They read what a run wrote and are no part of the loop, so a
tracker that fails or is killed harms no run, and old runs can be replayed.

Everything is written to local files, and nothing is sent anywhere.
"""

from __future__ import annotations

from selfrefine.tracking import mlflow, tensorboard, trackio, wandb
from selfrefine.tracking.base import TrackerKind

TRACKERS: dict[str, TrackerKind] = {
    kind.name: kind for kind in (tensorboard.KIND, trackio.KIND, mlflow.KIND, wandb.KIND)
}
