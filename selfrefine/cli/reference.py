"""What the docs say about the program, written by the program: the command line and the records' JSON Schema.

python -m selfrefine.cli.reference > docs/cli.md
python -m selfrefine.cli.reference docs/schema      writes one file per record
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import typer

from selfrefine.cli import app
from selfrefine.records import Sample, Task
from selfrefine.runfolder.summaries import RoundSummary, RunManifest

WIDTH = 100
RECORDS: dict[str, type[msgspec.Struct]] = {
    "task": Task,
    "sample": Sample,
    "round": RoundSummary,
    "manifest": RunManifest,
}

_HEAD = """\
# Command line

Generated from the program by `make docs`; a test keeps it true. Data is on stdout, everything else on
stderr; `-` is stdin or stdout. A flag wins over `--set`, that over the configuration file, that over the
default, which stands in brackets. All settings: [configuration.md](configuration.md); exit codes:
[records.md](records.md).
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


def main(arguments: list[str]) -> None:
    if not arguments:
        sys.stdout.write(cli_markdown())
    for folder in arguments:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, text in schema_files().items():
            Path(folder, name).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
