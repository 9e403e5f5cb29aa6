"""An engine of a plugin or of a file of the user's: it runs behind the boundary, and its faults are its own.

SystemExit inside `generate` would otherwise end a run in the middle, with exit code 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, cast

from selfrefine.engines.base import Engine
from selfrefine.registry import Origin, outside_code


def behind_boundary(engine: Engine, name: str, origin: Origin) -> Engine:
    """The same engine; what its methods raise, while iterating too, is a ConfigError that names it."""
    return cast("Engine", _Outside(engine, name, origin))


class _Outside:
    def __init__(self, engine: Engine, name: str, origin: Origin) -> None:
        self._of = engine, name, origin

    def __getattr__(self, name: str) -> Any:
        engine, _, _ = self._of
        value = self._call(getattr, engine, name)
        if not inspect.ismethod(value):
            return value
        return lambda *given, **more: self._call(value, *given, **more)

    def _call(self, function: Any, *given: Any, **more: Any) -> Any:
        with outside_code("engine", *self._of[1:]):
            found = function(*given, **more)
        return self._steps(found) if isinstance(found, Iterator) else found

    def _steps(self, found: Iterator[Any]) -> Iterator[Any]:
        while True:
            with outside_code("engine", *self._of[1:]):
                try:
                    step = next(found)
                except StopIteration:
                    return
            yield step
