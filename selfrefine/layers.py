"""The layers of a configuration: default < recipe < file < flag. Unknown keys are refused.

Rewards and objectives have settings of their own, which their descriptions know: `[reward.numeric]`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from selfrefine.config import Config, ObjectiveConfig
from selfrefine.errors import ConfigError
from selfrefine.fields import Setting, settings_of
from selfrefine.registry import converted, outside_code, refusal, registry, require_finite, split
from selfrefine.words import near, nearest

Layer = tuple[str, Mapping[str, Any]]
"""(origin, dotted keys to values)."""


class Settings(Struct, frozen=True):
    """A resolved configuration, and by dotted key who decided: `default`, `recipe`, `file`, `run`, `flag`."""

    config: Config
    origins: dict[str, str]
    notes: tuple[str, ...] = ()
    """What was ignored, since it belongs to a name that a later layer replaced."""


def resolve(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Settings:
    """Later layers win; each is (origin, nested or dotted table). Raises: ConfigError naming the key."""
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(keys(), "default")
    tables, notes = _of_replaced_names([(origin, flatten(table)) for origin, table in layers])
    flat = [(origin, key, value) for origin, table in tables for key, value in table.items()]
    # A short key, `objective.beta`, is about the objective that is chosen in the end.
    named = (value for _, key, value in reversed(flat) if key == "objective.name")
    objective = next(named, ObjectiveConfig().name)
    if isinstance(objective, str) and objective not in (known := registry("objective")):
        raise ConfigError(f"setting objective.name: no objective {objective!r}{nearest(objective, known)}")
    for origin, given, value in flat:
        check_key(given, origin)
        require_finite(given, value)
        if isinstance(value, str) and not value.isascii() and value != value.encode(errors="ignore").decode():
            raise ConfigError(f"{_said(origin)}: {given}: not UTF-8 text")
        key = _in_full(given, objective, origin, value)
        if key is not None:
            _put(merged, key, copy.deepcopy(value))  # a later layer adds keys to a table: not to a run's own
            origins[key] = origin
    try:
        config = msgspec.convert(merged, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(refusal(error, keys())) from None
    return Settings(_with_objective(config, origins), origins, notes)


_OF_ONE_KIND = ("tasks.prompt_field", "tasks.reference_field", "tasks.gate_file", "tasks.test_file")


def _of_replaced_names(tables: Sequence[Layer]) -> tuple[list[Layer], tuple[str, ...]]:
    """The tables without what belongs to a name that a later table replaced, and a note for each key.

    A source's settings belong to it alone; columns and held-out files to sources of its kind (two files, two
    gym datasets); `reward.gate_on` to the rewards it is one of.
    """
    chosen = next((table["tasks.source"] for _, table in reversed(tables) if "tasks.source" in table), "")
    source: object = ""
    kept: list[Layer] = []
    notes: dict[str, str] = {}
    for i, (origin, table) in enumerate(tables):
        source = table.get("tasks.source", source)
        stale = {
            key: f"{'they are' if key.startswith('tasks.settings') else 'it is'} for {source}"
            for key in _of_source(table, source, chosen)
        }
        if _gate_is_gone(tables, i):
            stale["reward.gate_on"] = "the reward it names is not used"
        kept.append((origin, {key: value for key, value in table.items() if key not in stale}))
        notes |= {key: why for key, why in stale.items() if table[key] not in ({}, None)}
    return kept, tuple(f"ignoring {key}: {why}" for key, why in notes.items())


def _of_source(table: Mapping[str, Any], source: object, chosen: object) -> list[str]:
    """The keys of a table that belong to its source and not to the one that is chosen in the end."""
    if not source or source == chosen:
        return []
    another_kind = _source_kind(source) != _source_kind(chosen)
    return [
        key for key in table if key.startswith("tasks.settings") or (another_kind and key in _OF_ONE_KIND)
    ]


def _source_kind(source: object) -> str:
    kind, colon, _ = str(source).partition(":")
    return kind if colon else "a file"


def _gate_is_gone(tables: Sequence[Layer], given_in: int) -> bool:
    """Whether the rewards were chosen anew after this table gave `reward.gate_on`, and it is none of them."""
    (_, own), later = tables[given_in], [table for _, table in tables[given_in + 1 :]]
    keys = ("reward.use", "evaluate.measure")
    if "reward.gate_on" not in own or not any(key in table for table in later for key in keys):
        return False
    merged = {key: table[key] for _, table in tables for key in keys if key in table}
    used = [name for names in merged.values() if isinstance(names, list | tuple) for name in names]
    replaced = any("reward.gate_on" in table for table in later)
    return not replaced and not any(f"{name}:".startswith(f"{own['reward.gate_on']}:") for name in used)


def stored(table: Mapping[str, Any]) -> Config:
    """The configuration in a manifest, of an earlier version's too; to read, not to go on with.

    Where a plugin or a file that it names is gone, what an objective or a reward has of its own is left as it
    stands. Raises: ConfigError.
    """
    with contextlib.suppress(ConfigError):
        return resolve([("run", table)]).config
    merged: dict[str, Any] = {}
    for key, value in flatten(table).items():
        if key in keys() or not key.startswith("objective.") or _own_key(key)[2]:
            _put(merged, key, value)
    try:
        return msgspec.convert(merged, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(refusal(error, keys())) from None


def objective_settings(config: ObjectiveConfig) -> Any:
    """The chosen objective's settings as its own struct. Raises: ConfigError naming the key."""
    kind = registry("objective").get(config.name)
    return converted(f"objective.{config.name}", config.settings.get(config.name, {}), kind.settings)


def _with_objective(config: Config, origins: Mapping[str, str]) -> Config:
    """With what the objective decides filled in, so that a manifest says it: all its settings, its rate.

    A flag that it never reads is an error: whoever typed it believes that it acts. In a file such settings
    may stand: the same file is run with several objectives.
    """
    own, kind = config.objective, registry("objective").get(config.objective.name)
    settings = objective_settings(own)
    with outside_code("objective", kind.name, kind.origin):
        unread = dict(kind.unread(settings))
    if not kind.needs_reference:
        unread["reference"] = f"{own.name} does not use it"
    for key, why in unread.items():
        if "flag" in (origins.get(f"objective.{key}"), origins.get(f"objective.{own.name}.{key}")):
            raise ConfigError(f"--set objective.{key}: {why}")
    table = msgspec.to_builtins(settings)
    return msgspec.structs.replace(
        config,
        objective=msgspec.structs.replace(own, settings={own.name: table} if table else {}),
        train=msgspec.structs.replace(config.train, lr=config.train.lr or kind.learning_rate),
    )


def _in_full(key: str, objective: object, origin: str, value: object) -> str | None:
    """`objective.beta` as `objective.dpo.beta`; None for what the chosen objective has no use for."""
    if not key.startswith("objective.") or key in keys():
        return key
    first, _, setting = split(key.removeprefix("objective."), ".")
    if setting:
        if origin == "flag" and first != objective:
            raise ConfigError(f"--set {key}: the objective is {objective}")
        return key if first == objective else None
    chosen = registry("objective").get(str(objective))
    if first in chosen.settings.__struct_fields__:
        return f"objective.{objective}.{first}"
    readers = _readers(first)
    if origin == "flag":
        raise ConfigError(f"--set {key}: {objective} does not use it, only {', '.join(readers)}")
    converted("objective", {first: value}, registry("objective").get(readers[0]).settings)
    return None


def _readers(setting: str) -> list[str]:
    """The objectives with a setting of that name; plugins are asked only for what no built-in one has."""
    found = registry("objective")
    for kinds in (map(found.get, found.built_in), found.usable()):
        readers = [kind.name for kind in kinds if setting in kind.settings.__struct_fields__]
        if readers:
            return readers
    return []


def read_toml(path: Path) -> dict[str, Any]:
    """A config file as a nested table. Raises: ConfigError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None


def parse_set(text: str) -> tuple[str, Any]:
    """`train.lr=1e-4` to its key and value; a value that is not TOML is a string. Raises: ConfigError."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: write KEY=VALUE, such as --set train.lr=1e-4")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value
    except RecursionError:
        raise ConfigError(f"--set {key.strip()}: nested too deeply") from None


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables to dotted keys. `reward.settings.NAME.KEY` is an older spelling of `reward.NAME.KEY`;
    what stands under one of `_OPEN` stays one value. Raises: ConfigError for a key that is given twice."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        dotted = _OLDER.sub(r"\1", f"{prefix}{key}")
        if isinstance(value, Mapping) and dotted not in _OPEN and not _own_key(dotted)[2]:
            inner = flatten(value, f"{dotted}.")
        else:
            inner = {dotted: value}
        if twice := flat.keys() & inner.keys():
            raise ConfigError(f"setting {min(twice)} is given twice")
        flat |= inner
    return flat


_OPEN = ("tasks.settings", "propose.settings")
"""Tables whose keys only a task source or a family knows."""
_OLDER = re.compile(r"^(reward|objective)\.settings(?=\.|$)")


def _own_key(dotted: str) -> tuple[str, str, str]:
    """`reward.numeric.tolerance` to ("reward", "numeric", "tolerance"); the rest empty for other keys."""
    table, _, rest = dotted.partition(".")
    if table not in ("reward", "objective") or dotted in keys():
        return dotted, "", ""
    name, _, key = split(rest, ".")
    return table, name, key


@functools.cache  # asked for each key that is checked, and taking annotations apart is slow
def keys() -> Mapping[str, Setting]:
    """Every dotted key, in the order of the structs, with what its definition says of it."""
    return {setting.key: setting for setting in settings_of(Config)}


def describe(key: str) -> Setting:
    """What the definition of a setting says of it. Raises: KeyError."""
    return keys()[key]


def check_key(dotted: str, origin: str) -> None:
    """Raises: ConfigError for a key that does not exist, naming the nearest one that does.

    A reward's own settings are looked at when rewards are built: that may load a plugin.
    """
    known = list(keys())
    table, name, key = _own_key(dotted)
    if dotted in known or dotted.startswith(tuple(f"{table}." for table in _OPEN)):
        return
    if key and name in registry(table):
        if table == "reward":
            return
        own = registry(table).get(name).settings.__struct_fields__
        if key in own:
            return
        known = [f"{table}.{name}.{one}" for one in own]
    elif key:
        raise ConfigError(f"{_said(origin)}: {dotted}: no {table} {name!r}{nearest(name, registry(table))}")
    elif table == "objective" and name:
        if _readers(name):
            return
        kinds = registry(table).usable()
        known += [f"objective.{one}" for kind in kinds for one in kind.settings.__struct_fields__]
    meant = near(dotted, known)
    raise ConfigError(f"{_said(origin)}: unknown key {dotted}{f'; did you mean {meant}?' if meant else ''}")


def _said(origin: str) -> str:
    return {"file": "config file", "flag": "--set"}.get(origin, origin)


def path_of(dotted: str) -> list[str]:
    """Where a key stands in a configuration: `reward.numeric.tolerance` in reward.settings."""
    table, name, key = _own_key(_OLDER.sub(r"\1", dotted))
    return [table, "settings", name, key] if key else dotted.split(".")


def _put(table: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = path_of(dotted)
    for parent in parents:
        table = table.setdefault(parent, {})
    table[last] = value
