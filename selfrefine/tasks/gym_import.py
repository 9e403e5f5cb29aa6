"""One dataset of reasoning-gym without the hundred others: they bring matplotlib and sympy, over a second."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

LIBRARY = "reasoning_gym"


_NAME = re.compile(r"^(?:DATASET_NAME = |register_dataset\()[\"'](\w+)[\"']", re.MULTILINE)


@functools.cache
def modules() -> dict[str, list[str]]:
    """Names of datasets to the modules that register them, read from the source: nothing is imported."""
    found: dict[str, list[str]] = {}
    if folder := _folder():
        for file in sorted(folder.rglob("*.py")):
            for name in _NAME.findall(file.read_text(encoding="utf-8")):
                module = ".".join((LIBRARY, *file.relative_to(folder).with_suffix("").parts))
                found.setdefault(name, []).append(module)
    return found


def register(dataset: str) -> None:
    """Make `reasoning_gym.factory` know the dataset, if there is one. Raises: ImportError.

    Only the dataset's own module is imported. If that fails, the whole library is.
    """
    factory = sys.modules.get(f"{LIBRARY}.factory")
    if LIBRARY in sys.modules or (factory is not None and dataset in factory.DATASETS):
        return
    named, folder = modules().get(dataset, []), _folder()
    if folder and len(named) == 1:
        with contextlib.suppress(Exception), _empty_parents(named[0], folder):
            importlib.import_module(named[0])
            return
    importlib.import_module(LIBRARY)


def _folder() -> Path | None:
    spec = PathFinder.find_spec(LIBRARY)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


@contextlib.contextmanager
def _empty_parents(name: str, folder: Path) -> Iterator[None]:
    """Inside, the packages above a module are empty, so that importing it imports none of its siblings."""
    package, path, there = LIBRARY, folder, []
    for part in name.split(".")[1:]:
        empty = _later.empty.setdefault(package, ModuleType(package))
        empty.__path__ = [str(path)]
        sys.modules[package] = empty
        there.append(package)
        package, path = f"{package}.{part}", path / part
    if _later not in sys.meta_path:
        sys.meta_path.insert(0, _later)
    try:
        yield
    finally:
        for package in there:
            del sys.modules[package]


class _Later:
    """Whoever imports the library afterwards gets all of it, and what is loaded already is bound in it."""

    def __init__(self) -> None:
        self.empty: dict[str, ModuleType] = {}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in self.empty else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module
        loaded = {key: one for key, one in vars(self.empty[name]).items() if isinstance(one, ModuleType)}

        def exec_module(module: ModuleType) -> None:
            vars(module).update(loaded)
            run(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_later = _Later()
