"""A verb's command: as a filter, or with --run as that stage of a run. Written once for all verbs.

A verb says its flags (each a configuration key) and what it does behind each of the two doors. Everything
that commands have in common, the options too, is here.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfrefine.cli import checks, common, complete, help
from selfrefine.errors import NothingSelectedError, UsageError
from selfrefine.layers import Settings, describe

if TYPE_CHECKING:
    from selfrefine.config import Config
    from selfrefine.stages.session import RunSession, Session


@dataclass(frozen=True)
class Flag:
    """An option that sets a configuration key, or, with `config` off, an argument of the verb's own.

    What the key's definition says is not said again: its type, its first sentence, its default.
    """

    key: str
    help: str = ""
    names: tuple[str, ...] = ()
    metavar: str | None = None
    config: bool = True
    also: str = ""
    """A second key that the same value sets."""
    panel: str | None = None

    @property
    def parameter(self) -> str:
        """The function parameter's name; typer makes --max-new-tokens of max_new_tokens."""
        return self.key if not self.config else self.key.replace(".", "__")

    def option(self) -> inspect.Parameter:
        names = self.names or ("--" + self.key.rpartition(".")[2].replace("_", "-"),)
        option = typer.Option(
            *names,
            help=self.help or self._defined(),
            metavar=self.metavar or ("NAME" if self._kind() is str else None),
            rich_help_panel=self.panel,
            autocompletion=complete.values(self.key) if self.config else None,
        )
        declared: Any = Annotated[self._kind() | None, option]
        return inspect.Parameter(
            self.parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=declared
        )

    def _kind(self) -> Any:
        if not self.config:
            return str
        setting = describe(self.key)
        return list[setting.type] if setting.many else setting.type  # type: ignore[name-defined]

    def _defined(self) -> str:
        setting = describe(self.key)
        more = " Repeatable." if setting.many else ""
        default = "" if setting.default in (None, (), "") else f" [{setting.default:g}]"
        return f"{setting.help}{more}{default}"


MODEL = Flag("model", common.MODEL_HELP, panel=help.MODEL)
BASE_URL = Flag("engine.base_url", common.BASE_URL_HELP, metavar="URL", panel=help.MODEL)
ADAPTER = Flag("adapter", "Put this LoRA adapter on the model.", metavar="FOLDER", panel=help.MODEL)
SEED = Flag("seed", common.SEED_HELP)
_ALWAYS: dict[str, tuple[Any, Any]] = {
    "set_": (common.SetOption, None),
    "summary_json": (common.SummaryOption, None),
    "allow_drift": (common.DriftOption, False),
}


@dataclass
class Asked:
    """What was typed: the resolved settings, and what is no setting."""

    settings: Settings
    source: str
    output: str | None
    reporter: common.ConsoleReporter
    trust: bool = False
    as_json: bool = False
    own: dict[str, Any] = field(default_factory=dict)
    """The verb's flags that are no configuration keys."""

    @cached_property
    def session(self) -> Session:
        return common.session(self.settings, self.reporter, trust=self.trust)


@dataclass(frozen=True)
class Verb:
    """`filter(asked)` does the work outside a run; both doors return the summary."""

    name: str
    about: str
    flags: tuple[Flag, ...]
    filter: Callable[[Asked], Any]
    in_run: Callable[[RunSession, int], Any] | None = None
    """The same inside a run, for its first uncommitted round. None: what `cycle` does under this name."""
    output: Any = common.Output
    output_default: str | None = "-"
    asks_model: bool = True
    json: bool = True
    check: Callable[[Config], object] | None = None
    """Refuses settings that the verb cannot work with, before a row is read."""

    def command(self) -> Callable[..., None]:
        """For typer: it reads the signature, which is made here."""

        def run(ctx: typer.Context, **given: Any) -> None:
            self._run(ctx, given)

        parameters = list(self._parameters())
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        run.__doc__ = self.about
        return run

    def _parameters(self) -> Iterator[inspect.Parameter]:
        def one(name: str, annotation: Any, default: Any) -> inspect.Parameter:
            return inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )

        yield inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        yield one("source", common.Input, "-")
        yield one("output", self.output, self.output_default)
        yield one("run", common.RunOption, None)
        models = (MODEL, BASE_URL, ADAPTER, SEED) if self.asks_model else ()
        for flag in (*self.flags, *models):
            yield flag.option()
        for name, (annotation, default) in _ALWAYS.items():
            yield one(name, annotation, default)
        if self.asks_model:
            yield one("trust_remote_code", common.TrustOption, False)
        if self.json:
            yield one("json_", common.JsonOption, False)

    def _refuse_data(self, typed: dict[str, Any], own: dict[str, Any]) -> None:
        """Raises: UsageError for what would be ignored in a run, whose stages have files of their own."""
        vain = {"FILE": typed["source"] != "-", "-o": typed["output"] != self.output_default}
        vain |= {"--json": typed.get("json_")} | {f"--{key}": value for key, value in own.items()}
        if found := [what for what, given in vain.items() if given]:
            raise UsageError(f"--run reads and writes the run's files: leave out {', '.join(found)}")

    def _run(self, ctx: typer.Context, typed: dict[str, Any]) -> None:
        flags = (*self.flags, MODEL, BASE_URL, ADAPTER, SEED)
        given = {flag.key: typed.get(flag.parameter) for flag in flags if flag.config}
        given |= {flag.also: given[flag.key] for flag in flags if flag.also}
        given = {key: value for key, value in given.items() if value is not None and value != []}
        own = {flag.key: typed[flag.parameter] for flag in self.flags if not flag.config}
        trust = typed.get("trust_remote_code", False)
        if typed["run"] is not None:
            from selfrefine.cli.by_hand import one_stage

            self._refuse_data(typed, own)
            one_stage(
                typed["run"],
                self.name,
                self.in_run or pkgutil.resolve_name(f"selfrefine.stages.cycle:{self.name}"),
                given,
                typed["set_"],
                typed["summary_json"],
                allow_drift=typed["allow_drift"],
                trust=trust,
            )
            return
        if not any(own.values()):
            common.need_input(ctx, typed["source"])
        settings = common.settings(None, typed["set_"], given)
        checks.verb(settings)
        checks.outputs(typed["summary_json"], None if self.output_default == "adapter" else typed["output"])
        if self.check is not None:
            self.check(settings.config)
        from selfrefine.cli.stream import way_on

        with common.reporting(self.name) as reporter:
            reporter.stop.way_on = way_on(typed["output"])
            asked = Asked(
                settings,
                typed["source"],
                typed["output"],
                reporter,
                trust=trust,
                as_json=typed.get("json_", False),
                own=own,
            )
            try:
                summary = self.filter(asked)
            except NothingSelectedError as empty:  # what a script reads after exit code 8
                common.write_summary(typed["summary_json"], self.name, empty.counts)
                raise
        common.write_summary(typed["summary_json"], self.name, summary)
