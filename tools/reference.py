"""What the docs say about the program, written by the program: `python -m tools.reference docs`.

docs/cli.md and docs/schema are written whole; of docs/configuration.md only the tables between its markers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import typer

from selfrefine import layers
from selfrefine.cli import app
from selfrefine.fields import table
from selfrefine.records import Sample, Task
from selfrefine.reflection.findings import Plan, Weaknesses
from selfrefine.runfolder.summaries import RoundSummary, RunManifest
from tools import kinds

WIDTH = 100
RECORDS: dict[str, type[msgspec.Struct]] = {
    "task": Task,
    "sample": Sample,
    "round": RoundSummary,
    "manifest": RunManifest,
    "weaknesses": Weaknesses,
    "plan": Plan,
}

_HEAD = """\
# Command line

Generated from the program by `make docs`. Data goes to stdout, everything else to stderr; `-` stands for
stdin or stdout. A flag overrides `--set`, which overrides the configuration file, which overrides the default
(in brackets). All settings: [configuration.md](configuration.md). Exit codes: [records.md](records.md).
`--install-completion` makes the Tab key offer recipes, rewards, objectives, runs and settings.
"""


def commands(command: Any = None, path: tuple[str, ...] = ("selfrefine",)) -> Iterator[tuple[str, Any]]:
    """("selfrefine runs new", its command) of the program and of everything below it, groups included."""
    command = typer.main.get_command(app) if command is None else command
    yield " ".join(path), command
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, (*path, name))


def cli_markdown() -> str:
    """docs/cli.md: the help of every command, at a fixed width."""
    parts = [_HEAD]
    for name, command in commands():
        # The root passes its -h on through a parent context, which would also put its name before ours.
        context = command.make_context(
            name, [], resilient_parsing=True, help_option_names=["-h", "--help"], terminal_width=WIDTH
        )
        lines = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"## {name}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


def schema(record: type[msgspec.Struct]) -> dict[str, Any]:
    """A record's JSON Schema, without the slot that carries foreign columns: that name is in no row."""
    made = msgspec.json.schema(record)
    for definition in made["$defs"].values():
        definition["properties"].pop("selfrefine:extra", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def schema_files() -> dict[str, str]:
    """File name in docs/schema to its text."""
    return {
        f"{name}.json": msgspec.json.format(msgspec.json.encode(schema(record))).decode() + "\n"
        for name, record in RECORDS.items()
    }


_TABLE = re.compile(r"(<!-- (settings|kinds): (\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)
_KINDS = {"rewards": kinds.rewards, "objectives": kinds.objectives, "sources": kinds.sources}


def configuration_markdown(page: str) -> str:
    """docs/configuration.md with its tables written anew, and the prose between them as it is.

    `<!-- settings: train -->` to `<!-- /settings -->` holds the settings of `[train]` (`run`: those without a
    table), `<!-- kinds: rewards -->` to `<!-- /kinds -->` what there is of a kind.
    """

    def written(found: re.Match[str]) -> str:
        opening, what, name, closing = found.groups()
        if what == "settings":
            rows = table(
                s for key, s in layers.keys().items() if (key.split(".")[0] if "." in key else "run") == name
            )
        else:
            rows = _KINDS[name]()
        return f"{opening}{rows.strip()}\n{closing}"

    return _TABLE.sub(written, page)


def pages(docs: Path) -> dict[Path, str]:
    """Every page that the program writes, and its text. docs: the folder they stand in."""
    configuration = docs / "configuration.md"
    return {
        docs / "cli.md": cli_markdown(),
        configuration: configuration_markdown(configuration.read_text()),
        **{docs / "schema" / name: text for name, text in schema_files().items()},
    }


def main(docs: str) -> None:
    for path, text in pages(Path(docs)).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
