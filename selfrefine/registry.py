"""Names and what stands behind them: rewards, objectives, engines, task sources and families, all described.

A name is built in (a lazy "module:attribute", imported when it is asked for), a plugin's (a Python entry
point of the registry's group), or `path/to/file.py:name`. The registries stand in their rooms.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import inspect
import math
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from selfrefine.boundary import Failed, behind
from selfrefine.errors import ConfigError
from selfrefine.fields import Setting, settings_of
from selfrefine.own_code import files_read, load_file
from selfrefine.words import a, in_words, nearest

if TYPE_CHECKING:  # it alone would be a quarter of the start-up
    from importlib import metadata

T = TypeVar("T", bound=Struct)
S = TypeVar("S", bound=Struct)

REGISTRIES = {
    "reward": "selfrefine.rewards:REWARDS",
    "objective": "selfrefine.objectives:OBJECTIVES",
    "engine": "selfrefine.engines:ENGINES",
    "task source": "selfrefine.tasks:SOURCES",
    "task family": "selfrefine.tasks.families:FAMILIES",
}


def registry(what: str) -> Registry[Any]:
    """One of REGISTRIES, for rooms below the registry's own: imports point down only, names may point up."""
    found: Registry[Any] = pkgutil.resolve_name(REGISTRIES[what])
    return found


class Origin(Struct, frozen=True, kw_only=True):
    """Where a description that is not built in comes from. `signature` stands in what it computes."""

    plugin: str = ""
    """Distribution and version."""
    sha256: str = ""
    """Of the user's file."""
    signature: str = ""
    module: str = ""
    """Of a plain function: where its docstring stands."""


BUILT_IN = Origin()


class NoSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Of what has none of its own."""


class Registry(Generic[T]):
    """Descriptions by name. `what` is what errors call one, `kind` its type, which has `name` and `origin`.

    `adopt(name, value, origin)` may make one of something else that a plugin or a file offers, or say None.
    Both are lazy.
    """

    def __init__(
        self, what: str, group: str, kind: str, built_in: Mapping[str, str], adopt: str = ""
    ) -> None:
        self.what, self.group, self.built_in = what, group, built_in
        self.kind, self.adopt = kind, adopt
        self._found: dict[str, T] = {}

    def __iter__(self) -> Iterator[str]:
        """The names, built-in ones first."""
        yield from self.built_in
        yield from self._entries

    def __contains__(self, name: str) -> bool:
        return name in self.built_in or ".py:" in name or name in self._entries

    def get(self, name: str) -> T:
        """What `name` stands for. Raises: ConfigError: unknown, or a plugin or file that cannot be used."""
        if ".py:" in name:
            return self._of_file(name)  # not kept: a file may change between two commands of one process
        if name not in self._found:
            self._found[name] = self._of_name(name)
        return self._found[name]

    def usable(self) -> Iterator[T]:
        """What can be loaded: for lists, and for errors about something else than a broken plugin."""
        for name in self:
            with contextlib.suppress(ConfigError):
                yield self.get(name)

    def _of_name(self, name: str) -> T:
        if name in self.built_in:
            built_in: T = pkgutil.resolve_name(self.built_in[name])
            return built_in
        if name not in self._entries:
            raise ConfigError(f"no {self.what} {name!r}{nearest(name, self)}")
        origin = Origin(plugin=self.plugin(name), signature=f"plugin:{self.plugin(name)}|name:{name}")
        try:
            with behind(f"the plugin {origin.plugin}"):
                value = self._entries[name].load()
        except Failed as error:
            raise ConfigError(
                f"{self.what} {name}: the plugin {origin.plugin} does not import: {error}"
            ) from None
        return self._adopted(name, value, origin, f"the plugin {origin.plugin}")

    def _of_file(self, spec: str) -> T:
        file, _, name = spec.rpartition(":")
        try:
            module, sha256 = load_file(Path(file))
        except ConfigError as error:
            raise ConfigError(f"{self.what} {spec}: {error}") from None
        if not hasattr(module, name):
            there = ", ".join(self._offered(module)) or "nothing usable"
            raise ConfigError(f"{self.what} {spec}: {file} has no {name} (it has: {there})")
        origin = Origin(sha256=sha256, signature=f"file:{Path(file).name}|sha256:{sha256[:12]}|fn:{name}")
        return self._adopted(spec, getattr(module, name), origin, file)

    def _offered(self, module: ModuleType) -> list[str]:
        """Names of the module's descriptions and, where a function will do, of its own functions."""
        kind = pkgutil.resolve_name(self.kind)
        return [
            name
            for name, value in vars(module).items()
            if isinstance(value, kind)
            or (self.adopt and callable(value) and getattr(value, "__module__", "") == module.__name__)
        ]

    def _adopted(self, name: str, value: object, origin: Origin, where: str) -> T:
        made = value if isinstance(value, pkgutil.resolve_name(self.kind)) else None
        if made is not None:
            made = msgspec.structs.replace(made, name=name, origin=origin)
        elif self.adopt:
            made = pkgutil.resolve_name(self.adopt)(name, value, origin)
        if made is None:
            module, _, kind = self.kind.partition(":")
            wanted = f"{'a function or ' if self.adopt else ''}{a(kind)} (see {module})"
            raise ConfigError(
                f"{self.what} {name}: {where} defines it as {a(type(value).__name__)}, "
                f"which is not {a(self.what)}; it must be {wanted}"
            )
        adopted: T = made
        return adopted

    def plugin(self, name: str) -> str:
        """Distribution and version of the plugin that brings `name`; "" for any other name."""
        if name in self.built_in or ".py:" in name or name not in self._entries:
            return ""
        return _distribution(self._entries[name])

    def edition(self, name: str) -> str:
        """`plugin`, and the sha256 of its sources where they are files: a version may outlive an edit."""
        plugin = self.plugin(name)
        if not plugin or name not in self._entries:
            return plugin
        spec = importlib.util.find_spec(self._entries[name].module.partition(".")[0])
        if spec is None or spec.origin is None:
            return plugin
        file = Path(spec.origin)
        files = sorted(file.parent.rglob("*.py")) if spec.submodule_search_locations else [file]
        digest = hashlib.sha256(b"".join(hashlib.sha256(one.read_bytes()).digest() for one in files))
        return f"{plugin}, sources {digest.hexdigest()[:12]}"

    @functools.cached_property
    def _entries(self) -> dict[str, metadata.EntryPoint]:
        """Read once and only when asked for: it looks at every installed distribution.

        Raises: ConfigError where two things have one name: neither may silently stand for the other.
        """
        from importlib import metadata

        entries: dict[str, metadata.EntryPoint] = {}
        for entry in metadata.entry_points(group=self.group):
            other = _distribution(entries[entry.name]) if entry.name in entries else ""
            if entry.name in self.built_in:
                other = "selfrefine itself"
            if other and other != _distribution(entry):
                raise ConfigError(
                    f"{self.what} {entry.name!r} is defined by both {_distribution(entry)} and {other}: "
                    "uninstall one of them"
                )
            entries[entry.name] = entry
        return entries


def split(text: str, by: str = ":") -> tuple[str, str, str]:
    """`name:rest` and `path/to/file.py:name:rest`, taken apart as by `str.partition`."""
    path, is_file, tail = text.partition(".py:")
    name, found, rest = (tail if is_file else text).partition(by)
    return (f"{path}.py:{name}" if is_file else name), found, rest


@contextlib.contextmanager
def outside_code(what: str, name: str, origin: Origin) -> Iterator[None]:
    """Around what a plugin or a file does besides scoring: its mistakes are its own, and no bug of ours.

    Raises: ConfigError with its reason.
    """
    if origin == BUILT_IN:
        yield
        return
    try:
        with behind(f"{what} {name}"):
            yield
    except Failed as error:
        where = f"the plugin {origin.plugin}" if origin.plugin else "its file"
        raise ConfigError(f"{what} {name}: {where} failed: {error}") from error


class Contained:
    """A plugin's or a file's object; what its methods raise, while iterating too, is a ConfigError naming it.

    SystemExit inside an engine's `generate` would otherwise end a run in the middle, with exit code 0.
    """

    def __init__(self, made: object, what: str, name: str, origin: Origin) -> None:
        self._made, self._whose = made, (what, name, origin)

    def __getattr__(self, name: str) -> Any:
        value = self._call(getattr, self._made, name)
        if not inspect.isroutine(value):
            return value
        return lambda *given, **more: self._call(value, *given, **more)

    def _call(self, function: Any, *given: Any, **more: Any) -> Any:
        with outside_code(*self._whose):
            found = function(*given, **more)
        return self._steps(found) if isinstance(found, Iterator) else found

    def _steps(self, found: Iterator[Any]) -> Iterator[Any]:
        while True:
            with outside_code(*self._whose):
                try:
                    step = next(found)
                except StopIteration:
                    return
            yield step


def converted(where: str, table: Mapping[str, Any], struct: type[S], *, strict: bool = True) -> S:
    """A table of settings as the struct that describes them. Raises: ConfigError naming the key."""
    known = {setting.key: setting for setting in settings_of(struct, f"{where}.")}
    for key in table:
        if f"{where}.{key}" not in known:
            names = [one.removeprefix(f"{where}.") for one in known]
            raise ConfigError(f"setting {where}.{key}: no such setting{nearest(key, names)}")
        require_finite(f"{where}.{key}", table[key])
    try:
        return msgspec.convert(table, struct, strict=strict)
    except msgspec.ValidationError as error:
        raise ConfigError(refusal(error, known, where)) from None


def require_finite(key: str, value: object) -> None:
    """A range with one end lets infinity pass, one without ends nan, and a manifest can hold neither.

    Raises: ConfigError naming the key.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            require_finite(f"{key}.{name}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            require_finite(key, inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"setting {key}: {value} is not a finite number")


def refusal(error: msgspec.ValidationError, known: Mapping[str, Setting], where: str = "") -> str:
    """msgspec's message in our words, the key first, and the choices where only some words are allowed."""
    message, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").removeprefix("" if where else ".")
    key, must = where + path, in_words(message)
    message = message[0].lower() + message[1:]
    choices = known[key].choices if key in known else ()
    given = message.removeprefix("invalid enum value ").strip("'")
    message = message.replace("invalid enum value", "no such choice")
    said = f"{key} {must}" if key and must else f"setting {key or '?'}: {must or message}"
    return f"{said}{nearest(given, choices) if choices else ''}"


def _distribution(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unnamed distribution"


def plugins_used(config: Any) -> dict[str, str]:
    """ "reward shout" and the like to the plugin's edition, for what a `Config` names."""
    found = {f"{what} {name}": registry(what).edition(name) for what, name in _names(config)}
    return {name: plugin for name, plugin in found.items() if plugin}


def files_used(config: Any) -> dict[str, str]:
    """The user's files that a `Config` names, and what those import from their folder, with sha256.

    Raises: ConfigError.
    """
    paths = sorted({name.rpartition(":")[0] for _, name in _names(config) if ".py:" in name})
    return {file: sha256 for path in paths for file, sha256 in files_read(Path(path)).items()}


def _names(config: Any) -> list[tuple[str, str]]:
    tasks = config.tasks
    rewards = [*config.reward.use, *config.evaluate.measure, config.guards.gold, config.reward.gate_on]
    rewards += [who for who in config.critique.asked if who not in ("model", "policy", "rewards")]
    texts = {
        "reward": rewards,
        "objective": [config.objective.name],
        "engine": [config.model, config.critique.critic_model],
        "task source": [tasks.source, tasks.gate_file, tasks.test_file],
        "task family": [config.propose.family] if config.propose.n else [],
    }
    return list(dict.fromkeys((what, split(text)[0]) for what, own in texts.items() for text in own if text))
