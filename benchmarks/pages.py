"""A page that people write and benchmarks fill in: each between its own two markers."""

from __future__ import annotations

import importlib.metadata
import os
import platform

PACKAGES = ("torch", "transformers", "peft", "numpy", "reasoning-gym")


def markers(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def filled(old: str, name: str, made: str, new: str) -> str:
    """`old` with `made` between the markers of `name`; where it has none, with both at its end, after `new`.

    What people wrote around them stays.
    """
    begin, end = markers(name)
    between = f"{begin}\n{made}{end}"
    if begin not in old or end not in old:
        return "\n\n".join(filter(None, (old.rstrip(), new, between))) + "\n"
    before, _, rest = old.partition(begin)
    return before + between + rest.partition(end)[2]


def made_on() -> str:
    """One line: system, cores, threads, versions. No host name, no user: pages are published."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, threads: {threads}, "
        f"Python {platform.python_version()}, {versions}."
    )
