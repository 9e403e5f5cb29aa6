"""What a tracker wrote, read back and compared value by value with the points of the run."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import environment, refused, selfrefine
from hostile import HOSTILE
from tfevents import Read, event_file, needs, numbers

from runs import whole
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import Guard
from selfrefine.tracking import TRACKERS
from selfrefine.tracking.base import inert
from selfrefine.tracking.points import Point
from selfrefine.tracking.reading import points

TEXT = "".join(HOSTILE.values())


def texts(found: list[Point]) -> list[tuple[str, int, str]]:
    return sorted((p.series, p.step, inert(p.value)) for p in found if isinstance(p.value, str))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """With a reason and a guard that were written to hurt."""
    guards = (Guard(name=TEXT[:200], value=1.5, state="warn", reason=TEXT),)
    return whole(tmp_path / "runs", reason=TEXT, guards=guards)


def track(run: Run, to: str, place: Path) -> None:
    done = selfrefine("runs", "track", run.path, "--to", to, "--dir", place, cwd=run.path.parent)
    assert done.code == 0, done.err


# --- TensorBoard ------------------------------------------------------------------------------------


def single(value: float) -> float:
    """As float32, which TensorBoard's scalars are."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


@needs("tensorboardX")
def test_tensorboard_holds_every_point_once_however_often_it_is_written(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "tb"
    (place / "demo").mkdir(parents=True)
    (place / "demo/events.mine").write_text("somebody's")
    expected = points(run)
    for _ in range(2):
        track(run, "tensorboard", place)
        found, written = event_file(place / "demo")
        assert found == {key: (single(float(v)), t) for key, (v, t) in numbers(expected).items()}
        assert len(found) > 60
        # Four spaces: a code block for the Markdown that TensorBoard renders.
        settings, *others = written
        assert settings[0] == "settings" and "    train.lr = 0.1\n" in settings[2]
        assert sorted((s, k, t.removeprefix("    ")) for s, k, t in others) == texts(expected)
        assert all(t.startswith("    ") and t.isprintable() for _, _, t in others)
    assert (place / "demo/events.mine").read_text() == "somebody's"


@needs("tensorboardX")
def test_another_run_of_the_same_name_is_not_replaced(run: Run, tmp_path: Path) -> None:
    from runs import make

    track(run, "tensorboard", tmp_path / "tb")
    other = make(tmp_path / "elsewhere", seed=4)
    words = ["runs", "track", other.path, "--to", "tensorboard", "--dir", tmp_path / "tb"]
    refused(selfrefine(*words, cwd=tmp_path), 5, "holds another run named demo", "--dir")


def test_what_is_missing_is_told_with_the_way_to_install_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for to, package in {"tensorboard": "tensorboardX", "trackio": "trackio"}.items():
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        done = selfrefine("runs", "track", run.path, "--to", to, "--dir", tmp_path / to, cwd=tmp_path)
        refused(done, 3, f"--to {to} needs the package {package}", f"pip install 'selfrefine[{to}]'")
    refused(selfrefine("runs", "track", run.path, "--to", "excel", cwd=tmp_path), 2, "excel")


def test_every_tracker_of_the_registry_can_be_named() -> None:
    from selfrefine.cli.runs_track import TrackerName

    assert [name.value for name in TrackerName] == list(TRACKERS)


# --- the heavy ones: a process each, because they read the environment when they are imported -------------


def offline(run: Run, to: str, place: Path, times: int = 2) -> None:
    """Tracked `times` times, in processes that fail to open a socket to anywhere but this machine."""
    guard = (
        "import socket,sys\n"
        "def deny(self, address):\n"
        "    if self.family != socket.AF_UNIX and address[0] not in ('127.0.0.1', '::1', 'localhost'):\n"
        "        raise SystemExit(f'network: {address}')\n"
        "    return plain(self, address)\n"
        "plain = socket.socket.connect\n"
        "socket.socket.connect = deny\n"
        "from selfrefine.__main__ import main\n"
        "sys.exit(main())\n"
    )
    for _ in range(times):
        words = ["runs", "track", str(run.path), "--to", to, "--dir", str(place)]
        done = subprocess.run(
            [sys.executable, "-c", guard, *words],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.long
@needs("trackio")
def test_trackio_holds_every_point_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    offline(run, "trackio", tmp_path / "t")
    import json

    base = sqlite3.connect(tmp_path / "t/selfrefine.db")
    rows = base.execute("select run_name, step, timestamp, metrics from metrics").fetchall()
    found: Read = {}
    written = []
    from datetime import datetime

    for name, step, time, metrics in rows:
        assert name == "demo"
        [(series, value)] = json.loads(metrics).items()
        if isinstance(value, str):
            written.append((series, step, value))
        else:
            found[series, step] = (value, datetime.fromisoformat(time).timestamp())
    expected = points(run)
    assert found == numbers(expected) and sorted(written) == texts(expected)
    assert len(rows) == len(expected)
    [(config,)] = base.execute("select config from configs").fetchall()
    assert json.loads(config)["train.lr"] == 0.1


@pytest.mark.long
@needs("mlflow")
@needs("sqlalchemy")
def test_mlflow_holds_every_point_once(run: Run, tmp_path: Path) -> None:
    offline(run, "mlflow", tmp_path / "m")
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'm/mlflow.db'}")
    experiment = client.get_experiment_by_name("selfrefine")
    [made] = client.search_runs([experiment.experiment_id])
    assert made.info.run_name == "demo" and made.info.status == "FINISHED"
    found: Read = {}
    for series in made.data.metrics:
        for metric in client.get_metric_history(made.info.run_id, series):
            assert (series, metric.step) not in found
            found[series, metric.step] = (metric.value, metric.timestamp / 1000)
    expected = points(run)
    assert found == numbers(expected)
    tags = {key: value for key, value in made.data.tags.items() if ".round-" in key}
    written = sorted((k.split(".round-")[0], int(k.split(".round-")[1][:3]), v) for k, v in tags.items())
    assert written == texts(expected)
    assert made.data.params["train.lr"] == "0.1"


@pytest.mark.long
@needs("wandb")
def test_wandb_holds_every_point_once_and_stays_offline(run: Run, tmp_path: Path) -> None:
    offline(run, "wandb", tmp_path / "w")
    import json

    from wandb.proto.wandb_internal_pb2 import Record

    [path] = (tmp_path / "w/wandb").glob("offline-run-*/*.wandb")
    found: Read = {}
    written = []
    for data in leveldb_log(path.read_bytes()):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") != "history":
            continue
        row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        for series, value in row.items():
            if series in ("round", "step") or series.startswith("_"):
                continue
            step = row["step" if series.startswith("train/") else "round"]
            if isinstance(value, str):
                written.append((series, step, value))
            else:
                assert (series, step) not in found
                found[series, step] = (value, row["_timestamp"])
    expected = points(run)
    assert found == numbers(expected) and sorted(written) == texts(expected)


def leveldb_log(data: bytes) -> Iterator[bytes]:
    """Records of wandb's file: LevelDB's log format after a header of 7 bytes, in blocks of 32 KiB."""
    at, whole = 7, b""
    while at < len(data):
        if (left := 32_768 - at % 32_768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # full, last
            yield whole
            whole = b""
