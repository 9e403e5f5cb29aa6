"""Python files of the user's as modules: each is loaded once, and may import its neighbours.

A file is a module of its own name where no other module has that name, so that pickling and process pools
find it; otherwise (`json.py`, or a second `score.py`) it gets a made-up one. Its folder stands last on
sys.path: a neighbour called `random.py` shadows nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType

from selfrefine.boundary import Failed, behind
from selfrefine.errors import ConfigError

_FILES: dict[tuple[Path, str], ModuleType] = {}
_NEIGHBOURS: dict[Path, dict[str, str]] = {}
"""By folder, what its files have imported from it while they were loaded, with sha256."""
_ADDED: list[str] = []
"""Folders of sys.path that are there for such files only, the last."""


def load_file(path: Path) -> tuple[ModuleType, str]:
    """A file of the user's as a module, and its sha256. The same content is executed once a process.

    Raises: ConfigError where it cannot be read or imported.
    """
    source, sha256 = _read(path)
    file = path.resolve()
    _forget_edited(file.parent)
    if (file, sha256) not in _FILES:
        _FILES[file, sha256] = _as_neighbour(file, sha256) or _executed(path, file, source)
    return _FILES[file, sha256], sha256


def files_read(path: Path) -> dict[str, str]:
    """The file, and the neighbours that were imported when it was loaded, with the sha256 of each.

    Raises: ConfigError where it cannot be read or imported.
    """
    found = {str(path): load_file(path)[1]}
    own = _NEIGHBOURS.get(path.resolve().parent, {})
    return found | {str(path.parent / name): sha256 for name, sha256 in own.items() if name != path.name}


def _read(path: Path) -> tuple[bytes, str]:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    return source, hashlib.sha256(source).hexdigest()


def _executed(path: Path, file: Path, source: bytes) -> ModuleType:
    name = _name(file)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    with _importable(file.parent):
        before = sys.modules.get(name)
        sys.modules[name] = module  # dataclasses, pickles and process pools look their module up by name
        try:
            with behind(str(path)):
                exec(compile(source, str(path), "exec"), module.__dict__)  # these bytes, which were hashed
        except Failed as error:
            sys.modules.pop(name, None)
            if before is not None:
                sys.modules[name] = before
            raise ConfigError(f"{path} does not import: {error}") from None
    return module


def _name(file: Path) -> str:
    """The file's own name, unless it is, or would be imported as, another module's."""
    stem = file.stem
    known = sys.modules.get(stem)
    if stem.isidentifier() and (known is None or _file(known) == file):
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(stem) if known is None else None
            if spec is None or (spec.origin and Path(spec.origin).resolve() == file):
                return stem
    return f"selfrefine_file_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"


def _as_neighbour(file: Path, sha256: str) -> ModuleType | None:
    """The file where another one has imported it already."""
    module = sys.modules.get(file.stem)
    imported = _NEIGHBOURS.get(file.parent, {}).get(file.name) == sha256
    return module if module is not None and imported and _file(module) == file else None


def _forget_edited(folder: Path) -> None:
    """After an edit of one neighbour, the files of its folder are loaded again."""
    own = _NEIGHBOURS.get(folder, {})
    if all((folder / name).is_file() and _read(folder / name)[1] == sha256 for name, sha256 in own.items()):
        return
    for name in [name for name, module in sys.modules.items() if _inside(module, name, folder) in own]:
        del sys.modules[name]
    for key in [key for key in _FILES if key[0].parent == folder]:
        del _FILES[key]
    own.clear()


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Inside, `import neighbour` means this folder's, even if another file's folder has one of that name."""
    own = _NEIGHBOURS.setdefault(folder, {})
    others = _NEIGHBOURS.keys() - {folder}
    hidden = {
        name: module
        for name, module in sys.modules.items()
        if others and any(_inside(module, name, above) for above in _above(module) if above in others)
    }
    for name in hidden:
        del sys.modules[name]
    if str(folder) not in sys.path:
        _ADDED.append(str(folder))
    added = [str(folder)] if str(folder) in _ADDED else []
    sys.path[:] = [one for one in sys.path if one not in _ADDED] + added
    before = set(sys.modules)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a .pyc may outlive a quick edit
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
        for name in set(sys.modules) - before:
            if relative := _inside(sys.modules[name], name, folder):
                own[relative] = _read(folder / relative)[1]
        sys.path += [one for one in _ADDED if one not in sys.path]
        sys.modules |= hidden


def _inside(module: ModuleType, name: str, folder: Path) -> str:
    """Where in the folder it lies, when it is a module of that folder and not of a library below it."""
    file = _file(module)
    if file is None or not file.is_relative_to(folder):
        return ""
    relative, top = file.relative_to(folder), name.partition(".")[0]
    return str(relative) if relative.parts[0] in (top, f"{top}.py") and top != "selfrefine" else ""


def _file(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return _resolved(file)[0] if isinstance(file, str) else None


def _above(module: ModuleType) -> tuple[Path, ...]:
    """The folders its file lies in, the nearest first."""
    file = getattr(module, "__file__", None)
    return _resolved(file)[1] if isinstance(file, str) else ()


@cache  # thousands of modules, whose files are asked for each time a file is loaded
def _resolved(file: str) -> tuple[Path, tuple[Path, ...]]:
    path = Path(file).resolve()
    return path, tuple(path.parents)
