"""What a settings struct says of its fields: their kind in words, default, choices, meaning; and ranges."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, inspect

Positive = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
OpenShare = Annotated[float, Meta(gt=0.0, le=1.0)]
BelowOne = Annotated[float, Meta(ge=0.0, lt=1.0)]
PositiveFloat = Annotated[float, Meta(gt=0.0)]
NonNegative = Annotated[float, Meta(ge=0.0)]
Factor = Annotated[float, Meta(ge=1.0)]

BAR = r"\|"
"""A bar within a cell of a Markdown table."""


def says(description: str) -> Meta:
    """A field's description, for `Annotated[Positive, says("Samples per prompt.")]`. Markdown; its first
    sentence stands alone in a command's help."""
    return Meta(description=description)


class Setting(Struct, frozen=True, kw_only=True):
    """A setting as its definition describes it."""

    key: str
    kind: str
    """In words, with its range: "count from 1", "share 0 to 1", "text", "choice", "list of texts"."""
    default: Any
    """None: not set."""
    description: str = ""
    choices: tuple[str, ...] = ()
    type: type[Any] | None = None
    """int, float, str or bool, for a flag. Of a list its items'; None for what no single flag can hold."""
    many: bool = False
    """A list, whose flag may be repeated."""

    @property
    def help(self) -> str:
        """The first sentence of the description as plain text."""
        return self.description.partition(". ")[0].rstrip(".").replace("`", "") + "."


def settings_of(struct: type[Struct], prefix: str = "") -> Iterator[Setting]:
    """Every field in order, those of nested structs under dotted keys."""
    return _settings(inspect.type_info(struct), prefix)


def _settings(struct: inspect.Type, prefix: str) -> Iterator[Setting]:
    assert isinstance(struct, inspect.StructType)
    for field in struct.fields:
        kind, said = field.type, ""
        if isinstance(kind, inspect.Metadata):
            said, kind = (kind.extra_json_schema or {}).get("description", ""), kind.type
        if isinstance(kind, inspect.StructType):
            yield from _settings(kind, f"{prefix}{field.name}.")
            continue
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        yield Setting(key=prefix + field.name, default=default, description=said, **_kind(kind))


def _kind(kind: inspect.Type) -> dict[str, Any]:
    """`kind`, `choices`, `type` and `many` of a Setting."""
    match kind:
        case inspect.UnionType():
            kinds = [_kind(one) for one in kind.types if not isinstance(one, inspect.NoneType)]
            return kinds[0] if len(kinds) == 1 else {"kind": " or ".join(one["kind"] for one in kinds)}
        case inspect.LiteralType():
            return {"kind": "choice", "choices": tuple(map(str, kind.values)), "type": str}
        case inspect.VarTupleType():
            return _kind(kind.item_type) | {"kind": f"list of {_plural(kind.item_type)}", "many": True}
        case inspect.TupleType():
            return {"kind": f"{len(kind.item_types)} {_plural(kind.item_types[0])}"}
        case inspect.IntType():
            noun = "whole number" if kind.ge is None and kind.gt is None else "count"
            return {"kind": f"{noun}{_range(kind)}", "type": int}
        case inspect.FloatType():
            top = kind.le if kind.lt is None else kind.lt
            noun = "number" if top is None or top > 1 else "share"
            return {"kind": f"{noun}{_range(kind)}", "type": float}
        case inspect.BoolType():
            return {"kind": "true or false", "type": bool}
        case inspect.StrType():
            return {"kind": "text", "type": str}
        case inspect.DictType():
            return {"kind": "table"}
    return {"kind": "any value"}


def _plural(kind: inspect.Type) -> str:
    noun, space, bounds = _kind(kind)["kind"].partition(" ")
    return f"{noun}s{space}{bounds}"


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    """Such as " from 1", " 0 to 1", " above 0 and below 0.5". Counts and shares below x say no 0."""
    bounds = (kind.ge, kind.gt, kind.le, kind.lt)
    ge, gt, le, lt = ("" if bound is None else f"{bound:,}".removesuffix(".0") for bound in bounds)
    if ge and le:
        return f" {ge} to {le}"
    plain = ge == "0" and (lt or isinstance(kind, inspect.IntType))
    low = f"above {gt}" if gt else f"from {ge}" if ge and not plain else ""
    high = f"below {lt}" if lt else f"at most {le}" if le else ""
    return "".join(f" {part}" for part in (low, "and" if low and high else "", high) if part)


def table(settings: Iterable[Setting]) -> str:
    """A Markdown table of settings: key, value, default, meaning."""
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for setting in settings:
        value = ", ".join(f"`{choice}`" for choice in setting.choices) or setting.kind
        default = "–" if setting.default is None else f"`{json.dumps(msgspec.to_builtins(setting.default))}`"
        cells = f"`{setting.key}`", value, default, setting.description
        rows.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
    return "\n".join(rows)
