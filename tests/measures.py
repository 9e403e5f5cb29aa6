"""What the shape of the house costs, in numbers: `python tests/measures.py [CHECKOUT]`. A script, not a test.

The files that a reward, an objective, an engine, a sampling key and a verb touch are found by the name of one
and listed: a reader must see whether a file names it because it has to, or because it uses it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent.parent)
BEFORE = 16_902
"""Lines of selfrefine/ before the reshaping."""
FUNCTION, FILE, BLOCK = 60, 400, 6
"""Lines of a function and of a file at most, and of a block that may not stand twice in cli/."""
GENERATED = ("docs/cli.md", "docs/schema/", "docs/configuration.md")
_WRITTEN = re.compile(r"<!-- (settings|kinds): \w+ -->.*?<!-- /\1 -->", re.DOTALL)

ROOMS = "cli|stages|steps|engines|rewards|objectives|tasks"
THINGS = {
    "a reward": ("repetition", 3),
    "an objective": ("rloo", 3),
    "an engine": ("scripted", 3),
    "a sampling key": ("min_p", 4),
    "a verb": ("critique", 6),
}
"""What is added, the example that is looked for, and how many files it may touch, generated pages aside."""


def sources(folder: str = "selfrefine") -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def long_functions() -> Iterator[str]:
    """Functions over FUNCTION lines, decorators and docstring included."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                lines = (node.end_lineno or first) - first + 1
                if lines > FUNCTION:
                    yield f"{lines} lines  {path.relative_to(ROOT)}:{first} {node.name}"


def long_files() -> Iterator[str]:
    for path in sources():
        if (lines := len(path.read_text().splitlines())) > FILE:
            yield f"{lines} lines  {path.relative_to(ROOT)}"


def equal_blocks() -> Iterator[str]:
    """BLOCK lines or more that stand twice in cli/: blank lines, comments and white space aside."""
    places: dict[tuple[str, ...], list[tuple[Path, int, int]]] = defaultdict(list)
    for path in sources("selfrefine/cli"):
        stripped = ((n, " ".join(line.split())) for n, line in enumerate(path.read_text().splitlines(), 1))
        lines = [(n, line) for n, line in stripped if line and not line.startswith("#")]
        for i in range(len(lines) - BLOCK + 1):
            window = lines[i : i + BLOCK]
            places[tuple(line for _, line in window)].append((path, i, window[0][0]))
    twice = {at[:2]: found for found in places.values() if len(found) > 1 for at in found}
    for (path, i), found in sorted(twice.items()):
        before = twice.get((path, i - 1))
        if found[0][:2] == (path, i) and (before is None or len(before) != len(found)):
            yield " = ".join(f"{other.relative_to(ROOT)}:{line}" for other, _, line in found)


def mentions(what: str, name: str) -> dict[str, list[str]]:
    """Files by what they are to it. A setting is found as a word, all else in quotes or as a module."""
    module = name.replace("-", "_")
    named = rf"""["'`]{name}["'`]|\b({ROOMS})[./]{module}\b|import .*\b{module}\b"""
    found = re.compile(rf"\b{module}\b" if what == "a sampling key" else named)
    texts = [*sources("tests"), *sources("benchmarks"), *ROOT.glob("docs/**/*.*"), *ROOT.glob("*.md")]
    places: dict[str, list[str]] = defaultdict(list)
    for path in [*sources(), *texts, *(ROOT / "selfrefine").rglob("*.toml")]:
        shown, text = str(path.relative_to(ROOT)), path.read_text()
        by_hand = _WRITTEN.sub("", text) if path.suffix == ".md" else text
        if path.name == Path(__file__).name or not (
            path.stem == module or found.search(text) or f"{module}.py" in text
        ):
            continue
        if shown.startswith("selfrefine/") and path.suffix == ".py":
            place = "package"
        elif shown.startswith("tests/") and f"_{module}" in path.stem:
            place = "its test"
        elif shown in ("docs/design.md", "docs/configuration.md") and (
            found.search(by_hand) or "design" in shown
        ):
            place = "its docs"
        else:
            place = "generated" if shown.startswith(GENERATED) else "uses it"
        places[place].append(shown)
    return places


def main() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in sources())
    print(f"selfrefine/: {lines:,} lines in {len(sources())} files, {lines - BEFORE:+,} against {BEFORE:,}")
    for what, found in (
        (f"functions over {FUNCTION} lines", list(long_functions())),
        (f"files over {FILE} lines", list(long_files())),
        (f"blocks of {BLOCK} lines or more that stand twice in cli/", list(equal_blocks())),
    ):
        print(f"\n{what}: {len(found)}", *found, sep="\n  ")
    for what, (name, most) in THINGS.items():
        places = mentions(what, name)
        touched = len(places["package"]) + max(1, len(places["its test"])) + len(places["its docs"])
        print(f"\n{what} ({name}): {touched} files with its test and docs, {most} at most")
        for place in ("package", "its test", "its docs", "generated", "uses it"):
            print(f"  {place}: {' '.join(places[place]) or 'none'}")


if __name__ == "__main__":
    main()
