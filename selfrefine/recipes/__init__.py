"""Recipes: a method of self-improvement as a short TOML file over the same five steps.

A recipe says how to learn (samples, selection, objective, rounds), never from what: the task, its measure and
the model come from a configuration file or flags. So `--recipe grpo` and `--config demo` combine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from selfrefine.errors import ConfigError
from selfrefine.layers import check_key, flatten, read_toml
from selfrefine.words import nearest

FOLDER = Path(__file__).parent
NOT_A_METHOD = frozenset({"tasks", "model", "adapter", "seed", "recipe"})
"""What a recipe may not decide; nor `evaluate.measure`, the reward that says what the task is about."""


class Recipe(Struct, frozen=True, kw_only=True):
    """`text` is the whole file, `about` the first line of its comment, `table` its settings."""

    name: str
    about: str
    text: str
    table: dict[str, Any]


def names() -> list[str]:
    """The shipped recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str) -> Recipe:
    """A shipped recipe, or a file of one's own (whatever has a / or ends in .toml).

    Raises: ConfigError: there is none, a key that does not exist, a key that a recipe cannot set.
    """
    own = "/" in name or name.endswith(".toml")
    path = Path(name) if own else FOLDER / f"{name}.toml"
    if not own and name not in names():
        raise ConfigError(f"no recipe {name!r}{nearest(name, names())}")
    table = read_toml(path)
    for key in flatten(table):
        check_key(key, f"recipe {name}")
        if key.partition(".")[0] in NOT_A_METHOD or key == "evaluate.measure":
            raise ConfigError(
                f"recipe {name}: a recipe cannot set {key}; set it in a --config file or with a flag"
            )
    text = path.read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    return Recipe(name=name, about=first.removeprefix("#").strip(), text=text, table=table)
