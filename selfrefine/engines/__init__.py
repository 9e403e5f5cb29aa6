"""One file per engine, which describes itself; here is only where each is. Imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from selfrefine.registry import BUILT_IN, Origin, Registry
from selfrefine.serving import EngineConfig

if TYPE_CHECKING:
    from selfrefine.engines.base import Engine


class LoadOptions(Struct, frozen=True, kw_only=True):
    """How a model is loaded. `say` is told of long waits and of what a user should know."""

    trust_remote_code: bool = False
    servers: EngineConfig = EngineConfig()
    say: Callable[[str], object] = lambda line: None


class EngineKind(Struct, frozen=True, kw_only=True):
    """What an engine says of itself. `load(rest, adapter, options)`: rest is what stands behind "NAME:"."""

    name: str
    spelling: str
    """How it is asked for with --model."""
    about: str
    load: Callable[[str, Path | None, LoadOptions], Engine]
    origin: Origin = BUILT_IN


ENGINES: Registry[EngineKind] = Registry(
    "engine",
    "selfrefine.engines",
    "selfrefine.engines:EngineKind",
    {
        "local": "selfrefine.engines.load:LOCAL",
        "openai": "selfrefine.engines.openai:OPENAI",
        "scripted": "selfrefine.engines.scripted:SCRIPTED",
    },
)
