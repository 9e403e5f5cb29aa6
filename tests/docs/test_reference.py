"""The pages that speak for the program are held against the program."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from blocks import PAGES, ROOT, commands, fences

from selfrefine import config, errors, layers
from selfrefine.cli import app
from selfrefine.cli.common import config_path
from selfrefine.records import Lesson, Message, Sample, Task, encode
from selfrefine.registry import REGISTRIES, registry
from selfrefine.rewards import REWARDS
from selfrefine.steps.reward import parse_spec
from selfrefine.tasks import SOURCES
from tools import reference

DOCS = ROOT / "docs"


@pytest.mark.parametrize("path", reference.pages(DOCS), ids=lambda path: path.name)
def test_a_page_that_the_program_writes_is_what_it_says(path: Path) -> None:
    assert path.read_text() == reference.pages(DOCS)[path], "run `make docs`"


def test_every_command_and_every_option_has_help() -> None:
    for name, command in reference.commands():
        assert (command.help or "").strip(), f"{name} has no help"
        for parameter in command.params:
            assert (getattr(parameter, "help", None) or "").strip(), f"{name} {parameter.opts} has no help"


def test_every_command_stands_on_the_reference_page_once() -> None:
    headings = re.findall(r"^## (selfrefine.*)$", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert headings == [name for name, _ in reference.commands()]
    assert {"selfrefine generate", "selfrefine runs verify", "selfrefine adapter merge"} <= set(headings)


def test_the_schema_hides_the_slot_for_foreign_columns_and_lets_them_pass() -> None:
    """`selfrefine:extra` is how a row carries columns that are not ours; in a row there is no such name."""
    text = (DOCS / "schema" / "sample.json").read_text()
    assert "selfrefine:extra" not in text
    sample, task = (json.loads(text)["$defs"][name] for name in ("Sample", "Task"))
    assert "additionalProperties" not in sample
    task_row = Task(id="a", prompt=(Message(role="user", content="?"),))
    row = Sample(id="a.r0.s0", task=task_row, messages=task_row.prompt, lesson=Lesson(), counted_tokens=1)
    encoded = json.loads(encode(row))
    assert set(encoded) == set(sample["properties"])
    assert set(encoded["task"]) == set(task["properties"])


def test_every_field_of_a_row_is_explained() -> None:
    page = (DOCS / "records.md").read_text()
    for record in (Sample, Task):
        for field in set(record.__struct_fields__) - {"extra"}:
            assert re.search(rf"^\|[^|]*`{field}`", page, re.MULTILINE), f"{field} is not in a table"


def test_every_exit_code_is_explained() -> None:
    codes = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and hasattr(e, "exit_code")}
    listed = re.findall(r"^\| ([\d, ]+) \|", (DOCS / "records.md").read_text(), re.MULTILINE)
    assert codes <= {int(code) for cell in listed for code in cell.split(",")}
    assert codes == set(range(1, 10))


def test_every_setting_stands_on_its_page_once_with_its_default() -> None:
    """A default that changes and is not told is how two people compare runs that were not alike."""
    page = (DOCS / "configuration.md").read_text()
    page = re.sub(r"<!-- kinds: .*?<!-- /kinds -->", "", page, flags=re.DOTALL)  # settings of their own
    told = re.findall(r"^\| `([a-z_.]+)` \| [^|]+ \| (–|`[^`]*`) \| [^|]+ \|$", page, re.MULTILINE)
    assert [key for key, _ in told] == list(layers.keys()), "keys, in the order of config.py"
    defaults = msgspec.to_builtins(config.Config())
    for key, shown in told:
        default = functools.reduce(lambda table, name: table[name], key.split("."), defaults)
        assert shown == ("–" if default is None else f"`{json.dumps(default)}`"), key


def test_the_tables_are_written_between_their_markers_and_nothing_else_is() -> None:
    page = (
        "# Mine\n<!-- settings: rationalise -->\nstale\n<!-- /settings -->\nprose\n"
        "<!-- settings: run -->\n<!-- /settings -->\n"
    )
    before, prompt, prose, adapter = (
        "# Mine\n<!-- settings: rationalise -->\n| key | value | default | meaning |\n|---|---|---|---|\n",
        '| `rationalise.prompt` | text | `"hint"` | Template of the hint: `hint`, '
        "`plain-hint` for a small model, or a file. |\n",
        "<!-- /settings -->\nprose\n<!-- settings: run -->\n| key | ",
        "| `adapter` | text | – | LoRA adapter to start with. |\n",
    )
    written = reference.configuration_markdown(page)
    assert written.startswith(before) and prompt + prose in written and adapter in written
    assert "stale" not in written and "`tasks.n`" not in written
    assert reference.configuration_markdown(written) == written


def test_every_setting_describes_itself_and_begins_with_a_sentence_for_help() -> None:
    for setting in layers.keys().values():
        assert re.fullmatch(r"[A-Z`].*\.", setting.description), f"{setting.key} has no sentence"
        assert len(setting.help) <= 110, f"{setting.key}: its first sentence is too long for a flag's help"
        if setting.choices:
            explained = set(re.findall(r"(?<=[;.] )`([a-z0-9-]+)`: ", setting.description))
            assert explained <= set(setting.choices), f"{setting.key} explains what is no choice"


def test_every_reward_and_every_kind_of_task_is_documented() -> None:
    page = (DOCS / "configuration.md").read_text()
    rows = re.findall(r"^\| ((?:`[a-z-]+` ?)+)\|", page, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    assert set(REWARDS) <= named
    for kind in set(SOURCES) - {"jsonl", "text", "-"}:
        assert f"`{kind}:" in page, f"{kind}: is nowhere"


def _calls() -> list[tuple[str, list[str]]]:
    """Every call in a fence, and every one in `inline code` that is no fragment."""
    found = []
    for page in PAGES:
        scripts = fences(page, "sh")
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        scripts += [one for one in re.findall(r"`(selfrefine [^`]*)`", prose) if "…" not in one]
        found += [(page.name, call) for script in scripts for call in commands(script)]
    return found


CALLS = _calls()


def test_there_are_calls_to_check() -> None:
    verbs = {call[0] for _, call in CALLS}
    assert {
        "tasks",
        "generate",
        "critique",
        "reward",
        "select",
        "finetune",
        "evaluate",
        "gate",
        "cycle",
    } <= verbs


@pytest.mark.parametrize(("page", "call"), CALLS, ids=[f"{p}: {' '.join(c)[:60]}" for p, c in CALLS])
def test_the_program_understands_what_the_docs_tell_to_type(page: str, call: list[str]) -> None:
    """A renamed flag breaks a page silently: here the program's own parser reads every call."""
    command: Any = typer.main.get_command(app)
    words = list(call)
    while getattr(command, "commands", None) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{page}: there is no command {words[0]}"
        command = command.commands[words.pop(0)]
    if {"--install-completion", "--show-completion"} & set(words):
        return  # parsing it is doing it: the completion of whoever runs the tests would be changed
    try:
        given = command.make_context("selfrefine", words).params
    except typer.Exit:  # --help, --version
        return
    for text in given.get("set_") or []:
        key, _ = layers.parse_set(text)
        if call[0] != "tasks":
            layers.check_key(key, "flag")
    for spec in [*(given.get("reward") or []), *(given.get("measure") or [])]:
        name = parse_spec(spec).name
        assert name in REWARDS or ".py:" in name
    if given.get("config") in {"demo", "demo-text"}:
        assert config_path(given["config"]).is_file()


@pytest.mark.parametrize("page", [page for page in PAGES if fences(page, "toml")], ids=lambda page: page.name)
def test_configuration_files_in_the_docs_are_accepted(page: object) -> None:
    for text in fences(page, "toml"):  # type: ignore[arg-type]
        layers.resolve([("file", tomllib.loads(text))])


def test_the_parser_of_these_tests_sees_calls_in_pipes_and_loses_none() -> None:
    script = (
        "cat > a.py <<'EOF'\nselfrefine not a call\nEOF\n"
        "head -1 a | selfrefine generate - -n 2 > b.jsonl\n"
        "selfrefine tasks \\\n    --suffix ' | no pipe' -n 1 |\n"
        "    selfrefine reward -r exact; jq 'a\n | selfrefine no'; selfrefine doctor\n"
    )
    assert commands(script) == [
        ["generate", "-", "-n", "2"],
        ["tasks", "--suffix", " | no pipe", "-n", "1"],
        ["reward", "-r", "exact"],
        ["doctor"],
    ]


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#[^)]*)?\)", page.read_text()):
            assert not target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_map_of_the_house_shows_every_file_and_no_other() -> None:
    (house,) = [text for text in fences(DOCS / "design.md", "text") if text.startswith("selfrefine/\n")]
    house = house[: house.index("\nprompts/")]
    shown, folder = set(), ""
    for line in house.splitlines()[1:]:
        if line.startswith("    "):
            shown |= {folder + name for name in re.findall(r"\b\w+\.py\b", line)}
        else:
            folder = line.split()[0] if line.split()[0].endswith("/") else ""
            shown |= set(re.findall(r"\b\w+\.py\b", line.split("  ")[1]))
    package = ROOT / "selfrefine"
    there = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    told = {name for name in there if Path(name).name != "__init__.py" or name in shown}
    # What a registry names is listed by the program: adding a reward is no change of this page.
    listed = {place.partition(":")[0] for what in REGISTRIES for place in registry(what).built_in.values()}
    optional = {f"{name.removeprefix('selfrefine.').replace('.', '/')}.py" for name in listed}
    assert shown <= told and told - shown <= optional
