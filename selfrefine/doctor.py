"""What `selfrefine doctor` knows: the facts of this machine that decide whether a run will work."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Literal

from msgspec import Struct

from selfrefine.errors import ConfigError, SelfrefineError
from selfrefine.registry import REGISTRIES, registry

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "tokenizers",
    "gguf",
    "reasoning-gym",
    "sacrebleu",
)
GIB = 1 << 30
_LITTLE_DISK, _NO_DISK = 2 * GIB, GIB // 4
_LITTLE_MEMORY = 3 * GIB
"""The demo's peak is about 2 GiB; what else runs on the machine wants some too."""

Status = Literal["ok", "warn", "fail"]


class Check(Struct, frozen=True, kw_only=True):
    name: str
    value: str
    """What was found, in one line."""
    status: Status = "ok"
    mend: str | None = None
    """What to do about it, where the status is not ok."""


def facts(runs_dir: Path, cache_dir: Path) -> list[Check]:
    """Everything `doctor` shows. Imports torch (seconds); writes and removes one small file in `runs_dir`."""
    return [
        _python(),
        *_packages(),
        *_plugins(),
        *_device(),
        _memory(),
        *_disks(runs_dir, cache_dir),
        _write_test(runs_dir),
        _embedded_model(),
    ]


def _python() -> Check:
    return Check(name="python", value=f"{platform.python_version()} at {sys.executable}")


def _packages() -> list[Check]:
    """Versions from the metadata: a package that cannot even be imported still has one."""
    found: list[Check] = []
    for package in PACKAGES:
        try:
            found.append(Check(name=package, value=importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            mend = f"pip install {package}"
            found.append(Check(name=package, value="not installed", status="fail", mend=mend))
    return found


def _plugins() -> list[Check]:
    """One for each name that a plugin brings; loaded, since a plugin that does not import fails in a run."""
    found: list[Check] = []
    for what in REGISTRIES:
        try:
            brought = [name for name in registry(what) if registry(what).plugin(name)]
        except ConfigError as error:  # two of one name: then there is no telling them apart
            mend = "uninstall one of the two"
            found.append(Check(name="plugins", value=str(error), status="fail", mend=mend))
            continue
        for name in brought:
            check = Check(name=f"{what} {name}", value=f"plugin of {registry(what).plugin(name)}")
            try:
                registry(what).get(name)
            except ConfigError as error:
                mend = "update the plugin, or uninstall it"
                check = Check(name=check.name, value=str(error), status="fail", mend=mend)
            found.append(check)
    return found


def _device() -> list[Check]:
    usable = _usable_cores()
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        value = f"torch does not import: {reason}"
        return [Check(name="device", value=value, status="fail", mend="reinstall torch")]
    if torch.cuda.is_available():
        device = f"cuda: {torch.cuda.get_device_name(0)}, {torch.cuda.device_count()} in all"
    elif torch.backends.mps.is_available():
        device = "mps"
    else:
        device = "cpu"
    return [Check(name="device", value=device), _threads(torch.get_num_threads(), usable)]


def _threads(threads: int, usable: int) -> Check:
    value = f"{threads} on {usable} usable cores of {os.cpu_count()}"
    if threads > usable:
        mend = f"export OMP_NUM_THREADS={usable}: more threads than cores wait for each other"
        return Check(name="threads", value=value, status="warn", mend=mend)
    return Check(name="threads", value=value)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # a container or taskset may allow fewer than there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> Check:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = _meminfo("MemAvailable")
    limit = _cgroup_free()
    if limit is not None:
        free = min(free or limit, limit)
    value = f"{total / GIB:.1f} GiB" if free is None else f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"
    if (total if free is None else free) < _LITTLE_MEMORY:
        mend = "close other programs, or use a smaller model"
        return Check(name="memory", value=value, status="warn", mend=mend)
    return Check(name="memory", value=value)


def _meminfo(field: str) -> int | None:
    """Bytes of a /proc/meminfo field; None where there is no such file (macOS)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup_free(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container's memory limit leaves (cgroup v2); /proc/meminfo shows the host's memory there."""
    try:
        limit, used = (root / "memory.max").read_text().strip(), (root / "memory.current").read_text()
        stat = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    reclaimable = int(stat.get("inactive_file", 0))  # page cache counts as used, and is given back
    return max(0, int(limit) - int(used) + reclaimable)


def _existing(path: Path) -> Path:
    """The path itself or its nearest parent that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _disks(runs_dir: Path, cache_dir: Path) -> list[Check]:
    return [_disk("disk for runs", runs_dir), _disk("disk for models", cache_dir)]


def _disk(name: str, folder: Path) -> Check:
    try:
        free = shutil.disk_usage(_existing(folder)).free
    except OSError as error:
        return Check(name=name, value=f"{folder}: {error.strerror}", status="fail", mend="use another folder")
    value = f"{free / GIB:.1f} GiB free at {folder}"
    if free < _LITTLE_DISK:
        status: Status = "fail" if free < _NO_DISK else "warn"
        return Check(name=name, value=value, status=status, mend="make room, or use another folder")
    return Check(name=name, value=value)


def _write_test(runs_dir: Path) -> Check:
    """What every commit needs of the folder: to write a file, lock it, fsync it and rename it.

    The lock is part of it: some network file systems write well and cannot lock.
    """
    folder = _existing(runs_dir)
    mend = "choose a folder on a local disk that you may write to"
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as scratch:
            part, whole = Path(scratch, "row.part"), Path(scratch, "row")
            with part.open("wb") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                handle.write(b"{}\n")
                handle.flush()
                os.fsync(handle.fileno())
            part.rename(whole)
            descriptor = os.open(scratch, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if whole.read_bytes() != b"{}\n":
                return Check(name="write test", value=f"{folder} lost a row", status="fail", mend=mend)
    except OSError as error:
        return Check(name="write test", value=f"{folder}: {error.strerror}", status="fail", mend=mend)
    return Check(name="write test", value=f"written, locked, fsynced and renamed in {folder}")


def _embedded_model() -> Check:
    try:
        return Check(name="embedded model", value=_embedded_status())
    except SelfrefineError as error:  # its message already says how to mend it
        mend = "or name another model with --model"
        return Check(name="embedded model", value=str(error), status="warn", mend=mend)


def _embedded_status() -> str:
    from selfrefine.engines import embedded

    return embedded.status()
