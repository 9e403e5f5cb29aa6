"""Help: every command explains itself, and every example in it is a command that exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from harness import answer, jsonl, selfrefine

from selfrefine.cli import app

FILTERS = ["generate", "critique", "reward", "select", "finetune", "evaluate"]


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    command = typer.main.get_command(app) if command is None else command
    below = getattr(command, "commands", {})
    if not below:
        yield " ".join(path), command
    for name, sub in below.items():
        yield from commands(sub, (*path, name))


COMMANDS = dict(commands())


def examples(text: str) -> list[str]:
    """Each `selfrefine …` of an example block; a pipe continued on the next line is one."""
    joined = re.sub(r"\|\s*\n\s*", "| ", text)
    lines = [line.strip() for line in joined.splitlines() if line.strip().startswith("selfrefine ")]
    return [part.strip() for line in lines for part in line.split("|")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_examples_that_parse(name: str) -> None:
    command = COMMANDS[name]
    found = examples(command.help)
    assert any(example.startswith(f"selfrefine {name}") for example in found), command.help
    assert "\b" in command.help  # otherwise the examples are re-wrapped into one paragraph
    for example in found:
        parses(example)


def test_the_examples_of_the_front_page_parse(tmp_path: Path) -> None:
    root = typer.main.get_command(app).help or ""
    assert len(examples(root)) == 4
    for example in examples(root):
        parses(example)
    shown = selfrefine("--help", cwd=tmp_path)
    assert shown.code == 0
    for name in COMMANDS:
        assert name.split()[0] in shown.out.decode()


def parses(example: str) -> None:
    """Every flag and argument is one of the command's; what is said is not done."""
    words = shlex.split(example.partition(" > ")[0])[1:]
    name = max((name for name in COMMANDS if words[: len(name.split())] == name.split()), key=len)
    COMMANDS[name].make_context(name, words[len(name.split()) :])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dozen_flags_at_most_each_explained(name: str) -> None:
    """The rest is --set: 897 configuration keys on a command line help nobody. Shared flags aside."""
    shared = {"--model", "--adapter", "--seed", "--set", "--summary-json", "--allow-drift", "--json", "--run"}
    shared |= {"--output", "--help", "--trust-remote-code", "--config", "--recipe"}
    options = [p for p in COMMANDS[name].params if p.param_type_name == "option"]
    assert all(option.help for option in options), [o.name for o in options if not o.help]
    assert len([option for option in options if not shared & set(option.opts)]) <= 12


@pytest.mark.parametrize("verb", FILTERS)
def test_with_a_keyboard_and_nothing_piped_the_help_is_shown(verb: str, tmp_path: Path) -> None:
    done = selfrefine(verb, stdin=None, cwd=tmp_path)
    assert done.code == 2 and done.out == b""
    assert "Usage: " in done.err and done.err.splitlines()[-1].startswith("error: nothing to read")


def test_tasks_alone_lists_the_sources_and_their_examples_parse(tmp_path: Path) -> None:
    done = selfrefine("tasks", stdin=None, cwd=tmp_path)
    assert done.code == 0
    said = done.out.decode()
    for kind in ("parallel:", "gym:", "concepts:", "hub:", ".jsonl", ".txt"):
        assert kind in said
    found = examples(said.replace("cat my.jsonl | ", ""))
    assert len(found) == 7
    for example in found:
        parses(example)


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    from selfrefine import __version__

    done = selfrefine("--version", cwd=tmp_path)
    assert (done.code, done.out.decode()) == (0, f"selfrefine {__version__}\n")


def test_no_arguments_show_the_help(tmp_path: Path) -> None:
    for words in ([], ["runs"], ["adapter"]):
        done = selfrefine(*words, cwd=tmp_path)
        assert done.code == 2 and "Usage: " in done.err + done.out.decode()


def test_a_bug_is_exit_1_and_its_traceback_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user reads one line, a maintainer gets everything; --debug shows it at once."""
    monkeypatch.setattr("selfrefine.tasks.listing", lambda: 1 / 0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = selfrefine("tasks", cwd=tmp_path)
    assert done.code == 1 and done.out == b""
    assert done.err.startswith("bug: ZeroDivisionError") and "Traceback" not in done.err
    [report] = tmp_path.glob("selfrefine-bug-*.txt")
    assert str(report) in done.err and "Traceback" in report.read_text()
    shown = selfrefine("--debug", "tasks", cwd=tmp_path)
    assert shown.code == 1 and "Traceback" in shown.err


@pytest.mark.parametrize("how", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_color_and_dumb_terminals_get_plain_text(
    how: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"TERM": "xterm-256color"} | how).items():
        monkeypatch.setenv(name, value)
    rows = jsonl(answer("a.r0.s0"), answer("a.r0.s1", "4"))
    done = selfrefine("reward", "-r", "numeric", stdin=rows, cwd=tmp_path, terminal=True)
    assert done.code == 0 and b"reward 1.000" in done.out
    assert b"\x1b" not in done.out and "\x1b" not in done.err
    assert len(done.err.splitlines()) == 1  # a line, no bar
