"""`selfrefine rewards` and `selfrefine objectives`: what their files say of themselves, plugins' included."""

from __future__ import annotations

from typing import Any

import typer

from selfrefine.cli import common, complete
from selfrefine.cli.common import JsonOption
from selfrefine.cli.help import App


def _group(what: str, example: str) -> typer.Typer:
    app = App(help=f"List and show {what}s.")

    @app.command("ls", help=f"List the {what}s.\n\n\b\n  selfrefine {what}s ls")
    def ls(json_: JsonOption = False) -> None:
        from selfrefine.registry import registry

        found = [_told(what, name) for name in registry(what)]
        if json_ or not common.on_terminal():
            for one in found:
                common.print_json(one)
            return
        width = max(len(one["name"]) for one in found)
        _say("".join(f"{one['name']:{width}}  {one['about']}{_from(one)}\n" for one in found))

    @app.command(
        "show",
        help=f"Show needs, settings and documentation of one of the {what}s.\n\n\b\n"
        f"  selfrefine {what}s show {example}",
    )
    def show(
        name: str = typer.Argument(
            help="A name from `ls`, or path/to/file.py:name.", autocompletion=complete.kinds(what)
        ),
        json_: JsonOption = False,
    ) -> None:
        from selfrefine.cli.kind_facts import everything

        told = everything(what, name)
        if json_ or not common.on_terminal():
            common.print_json(told)
            return
        lines = [f"{told['name']}: {told['about']}{_from(told)}"]
        lines += [f"{key}: {value}" for key, value in _short(told)]
        for one in told["settings"]:
            default = "not set" if one["default"] is None else one["default"]
            lines += [f"  {one['key']}  ({one['value']}; default {default})", f"      {one['description']}"]
        _say("\n".join([*lines, "", told["doc"], ""]))

    return app


def _told(what: str, name: str) -> dict[str, Any]:
    """A line of `ls`; of a plugin that cannot be used, why."""
    from selfrefine.cli.kind_facts import facts
    from selfrefine.errors import ConfigError
    from selfrefine.registry import registry

    try:
        return facts(what, name)
    except ConfigError as error:
        return {"name": name, "about": f"cannot be used: {error}", "plugin": registry(what).plugin(name)}


def _short(told: dict[str, Any]) -> list[tuple[str, str]]:
    """What there is to say of it in a line each."""
    shown = {
        "learns from": told.get("rows"),
        "train.lr": told.get("learning_rate"),
        "notes": "; ".join(told["needs"]),
        "source": told["source"],
        "sha256": told["sha256"],
    }
    return [(key, str(value)) for key, value in shown.items() if value]


def _from(told: dict[str, Any]) -> str:
    return f"  [{told['plugin']}]" if told["plugin"] else ""


def _say(text: str) -> None:
    """A plugin's words are foreign text."""
    from selfrefine.report.safe_text import safe_text
    from selfrefine.runfolder.jsonl import write_stdout

    write_stdout(safe_text(text, newlines=True).encode())


rewards = _group("reward", "numeric")
objectives = _group("objective", "grpo")
