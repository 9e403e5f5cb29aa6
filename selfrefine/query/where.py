"""The language of `runs rows --where`: conditions on a row, in a few of Python's expressions.

    reward < 0.2 and tag.op == "sub"
    "sorry" in text or matches(text, "(?i)cannot")
    reward.numeric == null and finish_reason != "length"

Parsed with Python's own parser and then read node by node: what is not in this file is refused, and nothing
is ever evaluated by Python. A comparison with null is false; only `== null` and `!= null` ask for it.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import Struct

from selfrefine.errors import UsageError
from selfrefine.query.rows import RowFile, Seen
from selfrefine.words import near

Value = str | float | bool | None | tuple[Any, ...]
Get = Callable[[Seen, RowFile], Any]
MAX_CHARACTERS = 4_000
MAX_DEPTH = 100
"""Levels of Python's tree. What is deeper nobody wrote by hand, and a row would end the recursion."""


class Field(NamedTuple):
    kind: str
    """"text" or "number"; a "tag" is text that is read as a number where it is compared with one."""
    get: Get


def _last(row: Seen, name: str) -> Any:
    return getattr(row.critiques[-1], name) if row.critiques else None


FIELDS: dict[str, Field] = {
    "id": Field("text", lambda row, file: row.id),
    "round": Field("number", lambda row, file: file.round),
    "stage": Field("text", lambda row, file: file.stage),
    "index": Field("number", lambda row, file: row.index),
    "text": Field("text", lambda row, file: row.text),
    "reward": Field("number", lambda row, file: row.reward),
    "finish_reason": Field("text", lambda row, file: row.finish_reason),
    "error": Field("text", lambda row, file: row.error),
    "prompt": Field("text", lambda row, file: row.prompt),
    "reference": Field("text", lambda row, file: next(iter(row.task.references), None)),
    "tokens": Field("number", lambda row, file: row.tokens),
    "parent_id": Field("text", lambda row, file: row.parent_id),
    "policy": Field("text", lambda row, file: row.policy),
    "task.id": Field("text", lambda row, file: row.task.id),
    "critique.verdict": Field("text", lambda row, file: _last(row, "verdict")),
    "critique.score": Field("number", lambda row, file: _last(row, "score")),
    "critique.text": Field("text", lambda row, file: _last(row, "text")),
    "critiques": Field("number", lambda row, file: len(row.critiques)),
}
"""And `tag.NAME`, `reward.NAME`. `round` is that of the folder; null in a final measurement."""
SHOWN = (*FIELDS, "tag.NAME", "reward.NAME", "len(text)")
TESTS: dict[str, Callable[[str, Any], bool]] = {
    "contains": lambda text, part: part in text,
    "startswith": lambda text, part: text.startswith(part),
    "endswith": lambda text, part: text.endswith(part),
    "matches": lambda text, pattern: pattern.search(text) is not None,
}
_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_CONSTANTS = {"null": None, "true": True, "false": False}


class Where(Struct, frozen=True):
    """A condition that was parsed."""

    text: str
    test: Callable[[Seen, RowFile], bool]

    def __call__(self, row: Seen, file: RowFile) -> bool:
        return self.test(row, file)


def parse(text: str) -> Where:
    """Raises: UsageError, which says where in the text and what would do instead."""
    if "\0" in text:
        raise UsageError("--where has a zero byte in it")
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"--where has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's own syntax, such as "\d" in a text
            tree = ast.parse(text.strip(), mode="eval")
        if _depth(tree) > MAX_DEPTH:
            raise RecursionError
        return Where(text, _Reader(text.strip()).condition(tree.body))
    except SyntaxError as error:
        raise UsageError(f"--where: {_why(text, error)}") from None
    except (RecursionError, MemoryError):
        raise UsageError("--where is nested too deeply") from None
    except (ValueError, UnicodeEncodeError):
        raise UsageError("--where is not UTF-8 text") from None


def _depth(tree: ast.AST) -> int:
    level: list[ast.AST] = [tree]
    depth = 0
    while level:
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        depth += 1
    return depth


def _why(text: str, error: SyntaxError) -> str:
    if re.search(r"(?<![=!<>])=(?!=)", text):
        return "not a condition: write == to compare"
    if re.search(r"\b(AND|OR|NOT|IN|LIKE|IS|NULL)\b|&&|\|\||<>", text):
        return "not a condition: write and, or, not, in, !=, and == null"
    if re.search(r"\b(contains|startswith|endswith|matches)\b\s*[^\s(]", text):
        return 'not a condition: write contains(text, "sorry")'
    at = f" at character {error.offset}" if error.offset else ""
    return f'not a condition{at}: {error.msg}; an example: reward < 0.2 and tag.op == "sub"'


class _Reader:
    """From Python's tree to functions of a row."""

    def __init__(self, text: str) -> None:
        self.text = text

    def refused(self, node: ast.AST, why: str) -> UsageError:
        said = ast.get_source_segment(self.text, node) or self.text
        return UsageError(f"--where: {said[:80]!r}: {why}")

    def condition(self, node: ast.expr) -> Callable[[Seen, RowFile], bool]:
        match node:
            case ast.BoolOp(op=op, values=values):
                parts = [self.condition(value) for value in values]
                if isinstance(op, ast.And):
                    return lambda row, file: all(part(row, file) for part in parts)
                return lambda row, file: any(part(row, file) for part in parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.condition(operand)
                return lambda row, file: not inner(row, file)
            case ast.Compare():
                return self.comparison(node)
            case ast.Call():
                return self.test(node)
            case ast.Constant(value=bool() as value):
                return lambda row, file: value
            case ast.Name(id="true" | "false" as name):
                return lambda row, file: name == "true"
        raise self.refused(node, "not a condition; compare it with something, such as reward >= 0.5")

    def comparison(self, node: ast.Compare) -> Callable[[Seen, RowFile], bool]:
        sides = [node.left, *node.comparators]
        pairs = [
            self.pair(node, left, op, right)
            for left, op, right in zip(sides[:-1], node.ops, sides[1:], strict=True)
        ]
        if len(pairs) == 1:
            return pairs[0]
        return lambda row, file: all(pair(row, file) for pair in pairs)

    def pair(
        self, node: ast.Compare, left: ast.expr, op: ast.cmpop, right: ast.expr
    ) -> Callable[[Seen, RowFile], bool]:
        if isinstance(op, ast.In | ast.NotIn):
            inner = self.within(left, right)
            return inner if isinstance(op, ast.In) else lambda row, file: not inner(row, file)
        if type(op) not in _COMPARED:
            raise self.refused(node, "write == null or != null")
        (a, a_kind), (b, b_kind) = self.value(left), self.value(right)
        if "null" in (a_kind, b_kind):
            if not isinstance(op, ast.Eq | ast.NotEq):
                raise self.refused(node, "a comparison with null is never true; write == null or != null")
            wanted = isinstance(op, ast.Eq)
            return lambda row, file: ((a(row, file) is None) is (b(row, file) is None)) is wanted
        a, b = self.alike(node, a, a_kind, b, b_kind)
        compare = _COMPARED[type(op)]

        def test(row: Seen, file: RowFile) -> bool:
            x, y = a(row, file), b(row, file)
            return x is not None and y is not None and compare(x, y)

        return test

    def alike(self, node: ast.AST, a: Get, a_kind: str, b: Get, b_kind: str) -> tuple[Get, Get]:
        """Both sides as one kind: a tag that is compared with a number is read as one."""
        kinds = {a_kind, b_kind}
        if kinds == {"tag", "number"}:
            return (_as_number(a), b) if a_kind == "tag" else (a, _as_number(b))
        if kinds <= {"text", "tag"} or kinds == {"number"}:
            return a, b
        raise self.refused(node, f"compares {_with_article(a_kind)} with {_with_article(b_kind)}")

    def within(self, left: ast.expr, right: ast.expr) -> Callable[[Seen, RowFile], bool]:
        """`tag.op in ["add", "sub"]`, and `"sorry" in text`."""
        a, a_kind = self.value(left)
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            values = []
            for one in right.elts:
                get, kind = self.value(one)
                if not isinstance(one, ast.Constant | ast.UnaryOp) or kind == "null":
                    raise self.refused(one, "a list holds texts and numbers only")
                values.append(self.alike(right, a, a_kind, get, kind))

            def listed(row: Seen, file: RowFile) -> bool:
                for x, y in values:
                    value = x(row, file)
                    if value is not None and value == y(row, file):
                        return True
                return False

            return listed
        b, b_kind = self.value(right)
        if not {a_kind, b_kind} <= {"text", "tag"}:
            raise self.refused(right, 'in looks in a list, or for a text in a text: tag.op in ["add", "sub"]')

        def inside(row: Seen, file: RowFile) -> bool:
            x, y = a(row, file), b(row, file)
            return x is not None and y is not None and x in y

        return inside

    def test(self, node: ast.Call) -> Callable[[Seen, RowFile], bool]:
        """contains(text, "x"), and text.contains("x")."""
        match node.func:
            case ast.Name(id=name):
                given = node.args
            case ast.Attribute(value=of, attr=name):
                given = [of, *node.args]
            case _:
                raise self.refused(node, "not a function of conditions")
        if name not in TESTS:
            meant = near(name, (*TESTS, "len"))
            known = ", ".join((*TESTS, "len"))
            raise self.refused(
                node, f"no such function{f'; did you mean {meant}?' if meant else ''} (known: {known})"
            )
        if len(given) != 2 or node.keywords:
            raise self.refused(node, f'write {name}(text, "sorry")')
        (a, a_kind), (b, b_kind) = self.value(given[0]), self.value(given[1])
        if not {a_kind, b_kind} <= {"text", "tag"}:
            raise self.refused(node, f"{name} asks two texts")
        if name == "matches":
            b = self.pattern(given[1])
        ask = TESTS[name]

        def test(row: Seen, file: RowFile) -> bool:
            x, y = a(row, file), b(row, file)
            return x is not None and y is not None and ask(x, y)

        return test

    def pattern(self, node: ast.expr) -> Get:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            raise self.refused(node, 'a pattern is a text: matches(text, "^[0-9]+$")')
        try:
            compiled = re.compile(node.value)
        except (re.error, RecursionError, OverflowError) as error:
            raise self.refused(node, f"not a regular expression: {error}") from None
        return lambda row, file: compiled

    def value(self, node: ast.expr) -> tuple[Get, str]:
        """A function that gives it, and its kind: text, tag, number or null."""
        match node:
            case ast.Constant(value=None) | ast.Name(id="null"):
                return (lambda row, file: None), "null"
            case ast.Constant(value=str() as text):
                return (lambda row, file: text), "text"
            case ast.Constant(value=bool()):
                raise self.refused(node, "no field is true or false")
            case ast.Constant(value=int() | float() as number):
                return (lambda row, file: number), "number"
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return (lambda row, file: -number), "number"
            case ast.Call(func=ast.Name(id="len"), args=[of], keywords=[]):
                get, kind = self.value(of)
                if kind not in ("text", "tag"):
                    raise self.refused(node, "len counts the characters of a text")
                return _length(get), "number"
        name = self.name(node)
        return self.field(node, name)

    def name(self, node: ast.expr) -> str:
        """`tag.op` and `reward["mine.py:f"]` as their parts joined by a dot."""
        match node:
            case ast.Name(id=name):
                return name
            case ast.Attribute(value=ast.Name(id=table), attr=name):
                return f"{table}.{name}"
            case ast.Subscript(value=ast.Name(id=table), slice=ast.Constant(value=str() as name)):
                return f"{table}.{name}"
        raise self.refused(node, f"neither a field nor a text nor a number (fields: {', '.join(SHOWN)})")

    def field(self, node: ast.AST, name: str) -> tuple[Get, str]:
        if name in FIELDS:
            return FIELDS[name].get, FIELDS[name].kind
        table, dot, rest = name.partition(".")
        if dot and table == "tag":
            return (lambda row, file: row.task.tags.get(rest)), "tag"
        if dot and table == "reward":
            return (
                lambda row, file: next((one.value for one in row.rewards if one.name == rest), None)
            ), "number"
        if table in ("tags", "rewards") and dot:
            raise self.refused(node, f"no such field; did you mean {table[:-1]}.{rest}?")
        meant = near(name, FIELDS)
        raise self.refused(
            node,
            f"no such field{f'; did you mean {meant}?' if meant else ''} (fields: {', '.join(SHOWN)}); "
            'a text stands in quotes: "sub"',
        )


def _length(get: Get) -> Get:
    def measured(row: Seen, file: RowFile) -> Any:
        value = get(row, file)
        return None if value is None else len(value)

    return measured


def _as_number(get: Get) -> Get:
    def read(row: Seen, file: RowFile) -> Any:
        try:
            return float(get(row, file))
        except (TypeError, ValueError):
            return None

    return read


def _with_article(kind: str) -> str:
    return {"number": "a number"}.get(kind, "a text")
