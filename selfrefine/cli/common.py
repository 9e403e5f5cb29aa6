"""What all commands share: their common flags, the resolved settings, what is said, the summary."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfrefine import recipes, streams
from selfrefine.cli import complete
from selfrefine.cli.guard import Stop, say, stoppable
from selfrefine.cli.help import MODEL, OUTPUT, RUN
from selfrefine.compute import plain
from selfrefine.errors import ConfigError, UsageError
from selfrefine.layers import Settings, flatten, parse_set, read_toml, resolve
from selfrefine.serving import EngineConfig

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from selfrefine.config import Config
    from selfrefine.engines.base import Engine
    from selfrefine.reflection.diagnosis import Diagnosis
    from selfrefine.report.console import Progress
    from selfrefine.runfolder.run import Run
    from selfrefine.stages.session import RunSession, Session

RUNS_DIR = Path("runs")
CONFIGS = Path(__file__).parent.parent / "configs"

Input = Annotated[str, typer.Argument(help="A JSON Lines file, or - for stdin. [-]", show_default=False)]
Output = Annotated[
    str,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write the rows to this file, or - for stdout. [-]",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]


def run_option(about: str) -> Any:
    return typer.Option(
        "--run", metavar="NAME", help=about, rich_help_panel=RUN, autocompletion=complete.runs
    )


RunOption = Annotated[
    str | None, run_option("Do this stage of the next round of a run, given by name or folder.")
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Read settings from a TOML file, or a shipped one: demo, demo-text.",
        autocompletion=complete.configs,
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="Use this method: a name from `selfrefine recipes ls`, or a file.",
        autocompletion=complete.recipes,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any other setting, such as train.lr=1e-4. Repeatable.",
        autocompletion=complete.settings,
    ),
]
MODEL_HELP = "The embedded model smollm2, a folder, a hub id, openai:NAME, or scripted[:FILE]. [smollm2]"
BASE_URL_HELP = "Address of the server behind openai:NAME; several with commas between them."
SEED_HELP = "Seed of everything random. [0]"
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME", help=MODEL_HELP, rich_help_panel=MODEL, autocompletion=complete.models
    ),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", help=BASE_URL_HELP, rich_help_panel=MODEL),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help=SEED_HELP)]
SummaryOption = Annotated[
    str | None,
    typer.Option(
        "--summary-json",
        metavar="FILE",
        help="Write the summary to this file as JSON.",
        rich_help_panel=OUTPUT,
    ),
]
DriftOption = Annotated[
    bool,
    typer.Option(
        "--allow-drift",
        help="Continue although settings differ from the run's. The run records it.",
        rich_help_panel=RUN,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print JSON Lines on a terminal, too.", rich_help_panel=OUTPUT),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run Python code from the model's repository.", rich_help_panel=MODEL
    ),
]


def flags(**given: Any) -> dict[str, Any]:
    """Dotted keys (with __ for the dot) to the values that were given on the command line."""
    return {
        key.replace("__", "."): list(value) if isinstance(value, list | tuple) else value
        for key, value in given.items()
        if value is not None and value != []
    }


def settings(
    config: str | None, sets: list[str] | None, given: Mapping[str, Any], run: Mapping[str, Any] | None = None
) -> Settings:
    """As `resolved`, and what is ignored is said."""
    found = resolved(config, sets, given, run)
    for note in found.notes:
        say(note)
    return found


def resolved(
    config: str | None, sets: list[str] | None, given: Mapping[str, Any], run: Mapping[str, Any] | None = None
) -> Settings:
    """Default < run < recipe < config file < --set and flags. The file may name the recipe, a flag another.

    Raises: ConfigError, also where a file or flag would train on another reward than the recipe is about.
    """
    file = read_toml(config_path(config)) if config is not None else {}
    said = {**dict(parse_set(text) for text in sets or []), **given}
    layers: list[tuple[str, Mapping[str, Any]]] = [("run", run)] if run is not None else []
    name = said.get("recipe") or file.get("recipe")
    if isinstance(name, str):
        method = recipes.read(name)
        layers.append(("recipe", method.table))
        own = flatten(method.table).get("reward.use")
        for layer in (flatten(file), flatten(said)):
            use = layer.get("reward.use", own)
            if own and isinstance(use, list) and use != own:  # another type is refused below
                raise ConfigError(
                    f"recipe {name} trains on {', '.join(own)}, not on another reward: drop -r, and name the "
                    "reward that measures with --measure"
                )
    layers += [("file", file), ("flag", said)]
    return resolve(layers)


def config_path(name: str) -> Path:
    """A file, or a configuration that ships with selfrefine. Raises: ConfigError."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = CONFIGS / f"{name}.toml"
    if path.name == name and shipped.is_file():
        return shipped
    names = ", ".join(shipped_configs())
    hint = f"; did you mean --recipe {name}?" if name in recipes.names() else ""
    raise ConfigError(f"--config {name}: no such file{hint} (shipped ones: {names})")


def shipped_configs() -> list[str]:
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def need_input(ctx: typer.Context, source: str) -> None:
    """With nothing on stdin and a terminal there is nothing to wait for: show the help."""
    if source == "-" and sys.stdin is not None and sys.stdin.isatty():
        sys.stderr.write(ctx.get_help() + "\n")
        raise UsageError("nothing to read: name a file, pipe rows in, or use --run")


def load(
    name: str, adapter: Path | None = None, *, trust: bool, servers: EngineConfig = EngineConfig()
) -> Engine:
    """`load_engine`, and what there is to know about this model is said: once, here."""
    from selfrefine.engines.load import load_engine

    engine = load_engine(name, adapter, trust_remote_code=trust, servers=servers, say=say)
    for note in engine.notes:
        say(f"{name}: {note}")
    if (memory := engine.memory) is not None:
        memory.on_change = lambda change: say(change.sentence())
    return engine


def of_critic(config: Config) -> EngineConfig:
    """How the critic's server is asked: with a key of its own where it has an address of its own."""
    from msgspec.structs import replace

    own = config.critique
    if own.base_url is None:
        return config.engine
    return replace(config.engine, base_url=own.base_url, key_env=own.key_env, key_file=own.key_file)


class ConsoleReporter:
    """Tells a person: bars on stderr, lines; and looks out for signals."""

    def __init__(self, stop: Stop) -> None:
        from selfrefine.report.console import make_console

        self.console: Console = make_console()
        self.stop = stop

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Progress]:
        from selfrefine.report.console import stage

        with stage(self.console, name, total) as bar:
            before, self.stop.left = self.stop.left, partial(_so_far, bar)
            try:
                yield bar
            finally:
                self.stop.left = before

    def check(self) -> None:
        self.stop.check()

    def say(self, message: str) -> None:
        from selfrefine.report.console import say

        say(self.console, message)

    def diagnosed(self, found: Diagnosis, run: str) -> None:
        from selfrefine.report.diagnosed import diagnosed

        for part in diagnosed(found, run):
            self.console.print(part, crop=False)


def _so_far(bar: Progress) -> str:
    return "" if bar.total is None else f"; {bar.done:,} of {bar.total:,} {bar.noun} of this stage are done"


def session(settings: Settings, reporter: ConsoleReporter, *, trust: bool) -> Session:
    """Models are loaded when they are first asked for."""
    from selfrefine.stages.session import Session

    own = settings.config
    plain.choose(own.compute.plain)
    adapter = Path(own.adapter) if own.adapter else None
    critic = own.critique.critic_model
    return Session(
        own,
        reporter,
        lambda: load(own.model, adapter, trust=trust, servers=own.engine),
        lambda: load(critic, trust=trust, servers=of_critic(own)) if critic else None,
    )


def run_session(run: Run, settings: Settings, reporter: ConsoleReporter, like: Session) -> RunSession:
    """For work on a run, with the models of a session that has them already."""
    from selfrefine.stages.session import RunSession

    return RunSession(settings.config, reporter, lambda: like.engine, lambda: like.critic, run=run)


def on_terminal() -> bool:
    """Whether somebody reads stdout as it comes."""
    stdout = streams.writing()
    return stdout is not None and stdout.isatty()


class _Page(io.StringIO):
    """Stands in for stdout: rich would write to it past `write_stdout` and its errors."""

    def isatty(self) -> bool:
        return on_terminal()


def show(view: RenderableType) -> None:
    """A view for a person, on stdout. Raises: StdoutClosed, RunFolderError, as for rows."""
    from selfrefine.report.console import make_console
    from selfrefine.runfolder.jsonl import write_stdout

    page = _Page()
    make_console(page).print(view, crop=False)
    printed = page.getvalue()
    if not on_terminal():  # in a file, what pads a line to the screen's width is in the way
        printed = "".join(f"{line.rstrip()}\n" for line in printed.split("\n")[:-1])
    write_stdout(printed.encode(errors="replace"))


def print_json(value: object) -> None:
    """One JSON object as a line on stdout."""
    from selfrefine.runfolder.jsonl import write_stdout

    write_stdout(json_line(value).encode())


def json_line(value: object) -> str:
    """A JSON object as a line; for a terminal, without a character that could act there."""
    import msgspec

    from selfrefine.report.safe_text import safe_json

    line = msgspec.json.encode(value, enc_hook=os.fspath).decode() + "\n"
    return safe_json(line) if on_terminal() else line


@contextmanager
def reporting(name: str = "") -> Iterator[ConsoleReporter]:
    """`name`: the command's, for what is said after a signal."""
    with stoppable(name) as stop:
        yield ConsoleReporter(stop)


def figures(summary: Any) -> dict[str, Any]:
    """A summary as an object, without its cost: its other figures say that."""
    import msgspec

    told: dict[str, Any] = msgspec.to_builtins(summary)
    told.pop("cost", None)
    return told


def table(name: str, summary: Any) -> dict[str, Any]:
    """A stage's summary as one object, with its name."""
    return {"stage": name, **figures(summary)}


def write_summary(path: str | None, name: str, summary: Any) -> None:
    """One JSON object to a file. The one-line form is printed by the stage's bar."""
    if path is None:
        return
    import msgspec

    from selfrefine.runfolder.jsonl import open_output

    with open_output(path) as write:
        write(msgspec.json.encode(table(name, summary)) + b"\n")
