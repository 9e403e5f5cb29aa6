"""How commands explain themselves and refuse: options in groups, and usage errors in the words of all others.

typer draws boxes or one long list; here are plain sections, as wide as the terminal.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from selfrefine.errors import UsageError
from selfrefine.words import nearest

MODEL, OUTPUT, RUN = "Model", "Output", "Run"
"""Groups of options; what is asked comes first, under "Options"."""

Function = TypeVar("Function", bound=Callable[..., Any])

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 10_000}

_Refusal: Any = typer.BadParameter.__bases__[0]
"""typer's usage error, which has no public name."""


class App(typer.Typer):
    """A group of commands in this program's style."""

    def __init__(self, **more: Any) -> None:
        super().__init__(cls=Group, no_args_is_help=True, rich_markup_mode=None, **more)

    def command(self, name: str | None = None, **more: Any) -> Callable[[Function], Function]:
        return super().command(name, cls=Command, **more)


class Command(TyperCommand):
    """A command whose options stand in their groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _options(self, ctx, formatter)


class Group(TyperGroup):
    """A group of commands. The outermost one's `main` raises usage errors as this program's own."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _options(self, ctx, formatter)
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            title = getattr(command, "rich_help_panel", None) or "Commands"
            sections.setdefault(title, []).append((name, first_sentence(command.help or "")))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def main(self, *args: Any, **more: Any) -> Any:
        more |= {"standalone_mode": False, "prog_name": "selfrefine"}
        try:
            code = super().main(*args, **more)
        except _Refusal as refusal:
            text = refusal.format_message()
            if text.startswith("Usage: "):  # a group without a command: its help is the answer
                sys.stderr.write(text + "\n")
                sys.exit(2)
            raise UsageError(sentence(refusal)) from None
        sys.exit(code if isinstance(code, int) else 0)


def first_sentence(text: str) -> str:
    """Of a command's help, in one line and without its full stop."""
    paragraph = " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())
    return re.split(r"\.(?= |$)", paragraph, maxsplit=1)[0]


def _options(command: Any, ctx: Any, formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    sections |= {MODEL: [], OUTPUT: [], RUN: []}
    for param in command.get_params(ctx):
        title = "Arguments" if param.param_type_name == "argument" else param.rich_help_panel or "Options"
        if record := param.get_help_record(ctx):
            sections.setdefault(title, []).append(record)
    for title, rows in sections.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def _choices(found: re.Match[str]) -> str:
    given, known = found[2], re.findall(r"'(.*?)'", found[3])
    return f"{found[1]}: no such choice {given!r}{nearest(given, known)}"


_PHRASES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"No such command '(.*?)'\..*", r"there is no command '\1'"),
    (r"No such option: (\S+).*", r"there is no option \1"),
    (r"Option '(.*)' requires (an argument|\d+ arguments)\.", r"\1 needs a value"),
    (r"Invalid value for '(.*?)': .*valid integer.*", r"\1 must be a whole number"),
    (r"Invalid value for '(.*?)': .*valid number.*", r"\1 must be a number"),
    (r"Invalid value for '(.*?)': Input should be greater than or equal to (\S+)", r"\1 must be \2 or more"),
    (r"Invalid value for '(.*?)': Input should be less than or equal to (\S+)", r"\1 must be at most \2"),
    (r"Invalid value for '(.*?)': (?:Value error, )?'(.*)' is not one of (.*)", _choices),
    (r"Invalid value for '(.*?)': (?:Value error, )?(.*)", r"\1: \2"),
    (r"Missing (?:argument|option) '(.*?)'\..*", r"\1 is missing"),
    (r"Got unexpected extra argument\(s\) \((.*)\)", r"unexpected argument: \1"),
)


def sentence(refusal: Any) -> str:
    """typer's complaint: what is wrong, what was probably meant, and where the help is."""
    said = str(refusal.format_message())
    for pattern, instead in _PHRASES:
        if re.fullmatch(pattern, said, re.DOTALL):
            said = re.sub(pattern, instead, said, flags=re.DOTALL)
            break
    ctx = refusal.ctx
    if ctx is None:
        return said[:500]
    command = ctx.command
    if option := getattr(refusal, "option_name", None):
        known = {name.lstrip("-"): name for param in command.get_params(ctx) for name in param.opts}
    else:
        option = (re.findall(r"no command '(.*)'", said) or [""])[0]
        known = {name: name for name in getattr(command, "commands", {})}
    near = difflib.get_close_matches(option.lstrip("-"), known, n=1) if said.startswith("there is no") else []
    where = ctx.command_path.removeprefix("selfrefine").strip()
    return (
        f"{where + ': ' if where else ''}{said[:500]}{f'; did you mean {known[near[0]]}?' if near else ''}\n"
        f"usage: {ctx.command_path} --help"
    )
