"""Help: every command explains itself, and every example in it is a command that exists."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from harness import answer, jsonl, refused, selfrefine

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
    shared |= {"--output", "--help", "--trust-remote-code", "--config", "--recipe", "--or-new"}
    shared |= {"--base-url"}
    options = [p for p in COMMANDS[name].params if p.param_type_name == "option"]
    assert all(option.help for option in options), [o.name for o in options if not o.help]
    assert len([option for option in options if not shared & set(option.opts)]) <= 12


@pytest.mark.parametrize("verb", FILTERS)
def test_with_a_keyboard_and_nothing_piped_the_help_is_shown(verb: str, tmp_path: Path) -> None:
    done = selfrefine(verb, stdin=None, cwd=tmp_path)
    assert done.code == 2 and done.out == b""
    assert "Usage: " in done.err and done.err.splitlines()[-1].startswith("error: nothing to read")


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_fit_on_80_columns(name: str) -> None:
    """A line that the terminal breaks cannot be read, and pasted it is two commands."""
    lines = inspect.cleandoc(COMMANDS[name].help).splitlines()
    assert all(len(line) + 2 <= 80 for line in lines if line.startswith("  ")), lines


def test_options_stand_in_groups_as_wide_as_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "132")
    shown = selfrefine("generate", "--help", cwd=tmp_path).out.decode()
    groups = re.split(r"\n\n(\w+):\n", shown)[1:]
    inside = {
        title: re.findall(r"^  (?:-o, )?(-\S+)", text, re.M)
        for title, text in zip(groups[::2], groups[1::2], strict=True)
    }
    assert list(inside) == ["Arguments", "Options", "Model", "Output", "Run"]
    assert inside["Options"][0] == "-n" and "--set" in inside["Options"]
    assert inside["Model"] == ["--model", "--base-url", "--adapter", "--trust-remote-code"]
    assert inside["Output"] == ["--output", "--summary-json", "--json"]
    assert inside["Run"] == ["--run", "--allow-drift"]
    assert 100 < max(map(len, shown.splitlines())) <= 130


def test_the_front_page_says_of_each_command_a_whole_sentence(tmp_path: Path) -> None:
    # Trap: "Versions, device, free disk and memory, the embedded model,..."
    shown = selfrefine("--help", cwd=tmp_path).out.decode()
    assert "..." not in shown.partition("The loop:")[2]


USAGE = {
    "genrate": ["no command 'genrate'", "did you mean generate?", "usage: selfrefine --help"],
    "runs shw": ["runs: there is no command 'shw'", "did you mean show?", "usage: selfrefine runs --help"],
    "generate --tempature 1": [
        "no option --tempature",
        "did you mean --temperature?",
        "selfrefine generate --help",
    ],
    "generate --nope": ["no option --nope\nusage:"],
    "generate --n 3": ["no option --n", "did you mean -n?"],
    "generate -n x": ["generate: -n must be a whole number"],
    "show -n 0 rows.jsonl": ["show: -n must be 1 or more"],
    "adapter merge a -o b --dtype float8": [
        "no such choice 'float8'; did you mean 'float32'? (known: bfloat16"
    ],
    "generate --top-p x": ["generate: --top-p must be a number"],
    "recipes show": ["recipes show: name is missing"],
    "gate": ["gate: --run is missing"],
    "generate a b": ["generate: unexpected argument: b"],
    "cycle --rounds": ["--rounds needs a value"],
}


@pytest.mark.parametrize("words", USAGE)
def test_a_usage_error_is_a_sentence_like_any_other(words: str, tmp_path: Path) -> None:
    """typer's own are five lines with "Error:" in front, and pydantic's grammar in them."""
    refused(selfrefine(*words.split(), cwd=tmp_path), 2, *USAGE[words])


TAB = {
    "cycle --recipe st": ["star", "star-iteration"],
    "cycle --config dem": ["demo", "demo-text"],
    "cycle --gate s": ["significant", "strict"],
    "cycle --run s": ["sums"],
    "cycle --set train.lo": [
        "train.lora.r=",
        "train.lora.alpha=",
        "train.lora.dropout=",
        "train.lora.targets=",
    ],
    "cycle -r ex": ["exact"],
    "reward --gate-on ex": ["exact"],
    "evaluate -m ex": ["exact"],
    "finetune --objective gr": ["grpo"],
    "select --select gr": ["groups"],
    "objectives show gr": ["grpo"],
    "recipes show st": ["star", "star-iteration"],
    "runs show s": ["sums"],
    "compare sums s": ["sums"],
    "tasks gy": ["gym:"],
    "generate --model s": ["smollm2", "scripted"],
}


@pytest.mark.parametrize("typed", TAB)
def test_the_tab_key_offers_names(typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "sums").mkdir(parents=True)
    (tmp_path / "runs" / "sums" / "manifest.json").touch()
    words = {"COMP_WORDS": f"selfrefine {typed}", "COMP_CWORD": str(len(typed.split()))}
    for name, value in (words | {"_SELFREFINE_COMPLETE": "complete_bash"}).items():
        monkeypatch.setenv(name, value)
    assert selfrefine(cwd=tmp_path).out.decode().split() == TAB[typed]


def test_the_tab_key_waits_for_no_long_import() -> None:
    code = (
        "import sys, selfrefine.cli.complete as c; from selfrefine.layers import keys; "
        "[f('') for f in (c.recipes, c.configs, c.runs, c.settings, c.sources, c.models)]; "
        "c.values('reward.use')(''); c.values('objective.name')(''); "
        "print([m for m in ('numpy', 'torch', 'rich', 'scipy', 'sacrebleu') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


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
