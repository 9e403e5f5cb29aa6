"""What the figures were measured on: processor, memory, versions, and how fast it multiplies matrices."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "numpy")
SIZE = 2048
"""Side of the square float32 matrices: 16 MiB each, large enough that the product is all that counts."""


class Machine(Struct, frozen=True, kw_only=True):
    """No host name, no user: these figures are published."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    threads: int
    versions: dict[str, str]


def describe(threads: int) -> Machine:
    return Machine(
        cpu=_field(Path("/proc/cpuinfo"), "model name") or platform.processor() or "unknown",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        threads=threads,
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
    )


@functools.cache
def sources() -> str:
    """The first 8 digits of a hash over the tool's and the benchmarks' sources: figures of two versions stand
    beside each other in one page, and should not be taken for one."""
    root = Path(__file__).parents[1]
    files = sorted([*root.glob("selfrefine/**/*.py"), *root.glob("benchmarks/*.py")])
    found = hashlib.sha256()
    for file in files:
        found.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()[:8]


def product_rate(seconds: float, size: int = SIZE) -> float:
    """Floating point operations per second of `torch.mm` on square float32 matrices: the median of its runs.

    2 size^3 operations each, torch's own threads, after a warm-up.
    """
    import torch

    left, right = torch.rand(size, size), torch.rand(size, size)
    out = torch.empty(size, size)
    return _rate(lambda: torch.mm(left, right, out=out), seconds, size)


def packed_rate(seconds: float, size: int = SIZE) -> float | None:
    """The same product as a oneDNN linear layer with packed weights, or None where torch has no oneDNN.

    Some processors run the library behind `torch.mm` far below what they can do: whoever reads a share of
    its rate should know the other one.
    """
    import torch

    if not torch._C._has_mkldnn:
        return None
    left = torch.rand(size, size)
    with torch.inference_mode():
        weights = torch.ops.mkldnn._reorder_linear_weight(torch.rand(size, size), size)
        multiply = torch.ops.mkldnn._linear_pointwise
        return _rate(lambda: multiply(left, weights, None, "none", [], ""), seconds, size)


def _rate(multiply: Callable[[], object], seconds: float, size: int) -> float:
    for _ in range(2):
        multiply()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < 3:
        begun = time.perf_counter()
        multiply()
        taken.append(time.perf_counter() - begun)
    return 2.0 * size**3 / statistics.median(taken)


def peak_bytes() -> int:
    """The most memory this process ever held: VmHWM, resident pages, shared libraries included."""
    return _status_bytes("VmHWM")


def resident_bytes() -> int:
    """What it holds now: VmRSS."""
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int:
    value = _field(Path("/proc/self/status"), name)
    if value is None:
        raise OSError(f"/proc/self/status has no {name}: peak memory is measured on Linux only")
    return int(value.split()[0]) * 1024


def _field(file: Path, name: str) -> str | None:
    """The value of the first `name: value` line, or None."""
    if not file.is_file():
        return None
    for line in file.read_text().splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return None
