"""`selfrefine reflect`: what a run, or a file of scored samples, fails at, and what to try next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfrefine.cli import common
from selfrefine.cli.help import OUTPUT
from selfrefine.cli.verb import Asked, Flag, Verb
from selfrefine.errors import UsageError

if TYPE_CHECKING:
    from selfrefine.config import Config
    from selfrefine.engines.base import Engine
    from selfrefine.reflection.findings import Plan, Weaknesses
    from selfrefine.runfolder.run import Run
    from selfrefine.stages.session import RunSession

ROWS = (".jsonl", ".gz", ".zst", ".parquet", ".json")
"""Endings of files with rows; a run's name may have a dot in it, too."""


OF_A_RUN, OF_ROWS = ("reflect.causes",), ("select.min_reward", "seed")
"""The keys that count: a run is looked at with the settings it was made with, and no model looks at rows."""


def _filter(asked: Asked) -> dict[str, Any]:
    path = Path(asked.source)
    rows = asked.source == "-" or path.is_file() or (path.suffix in ROWS and not path.is_dir())
    what, counts = ("rows", OF_ROWS) if rows else ("a run", OF_A_RUN)
    given = [key for key, origin in asked.settings.origins.items() if origin == "flag"]
    if vain := sorted({*given} - {*counts}):
        why = "no model looks at them" if rows else "it is looked at with its own settings"
        raise UsageError(f"reflect on {what} takes no {', '.join(vain)}: {why}")
    return _of_rows(asked) if rows else _of_run(asked)


def _of_rows(asked: Asked) -> dict[str, Any]:
    from selfrefine.cli.stream import read_samples
    from selfrefine.errors import DataError
    from selfrefine.stages.reflect import Seen, weaknesses_of

    rows = tuple(read_samples(asked.source))
    if not any(row.rewards or row.reward is not None for row in rows):
        name = "stdin" if asked.source == "-" else asked.source
        raise DataError(f"{name}: no row has a reward: score them first with `selfrefine reward`")
    last = max(row.round for row in rows)
    found = weaknesses_of(Seen(index=last + 1, gate=(), train=rows), asked.settings.config)
    return _shown(asked, found, None, {"samples": len(rows)})


def _of_run(asked: Asked) -> dict[str, Any]:
    from selfrefine.layers import stored
    from selfrefine.runfolder.run import Run, locate
    from selfrefine.stages.reflect import kept, reflected

    run = Run.open(locate(common.RUNS_DIR, asked.source))
    config = stored(run.manifest.config)
    wants = asked.settings.config.reflect.causes
    found = reflected(run, config, (lambda: _critic(asked, run, config)) if wants else None)
    place = kept(run, found)
    told = _shown(asked, found.weaknesses, found.plan, {"run": run.name, "folder": str(place)})
    asked.reporter.say(f"reflect: weaknesses.json, causes.md and plan.json are in {place}")
    return told


def _critic(asked: Asked, run: Run, config: Config) -> Engine | None:
    """The run's critic, else its accepted policy. None, with a line, where it cannot be loaded: the figures
    need no model.
    """
    from selfrefine.errors import SelfrefineError
    from selfrefine.layers import Settings

    session = common.session(Settings(config, {}), asked.reporter, trust=asked.trust)
    try:
        if config.critique.critic_model is None and run.accepted_adapter is not None:
            session.engine.use_adapter(run.accepted_adapter)
        return session.critic
    except SelfrefineError as error:
        asked.reporter.say(f"no causes from a model ({error}); --no-causes asks for none")
        return None


def _shown(asked: Asked, found: Weaknesses, made: Plan | None, more: dict[str, Any]) -> dict[str, Any]:
    """On a terminal a table, else one JSON object; returns what --summary-json gets."""
    import msgspec

    from selfrefine.runfolder.jsonl import open_output

    told = {**more, "weaknesses": msgspec.to_builtins(found)}
    if made is not None:
        told["plan"] = msgspec.to_builtins(made)
    if asked.output is not None:
        with open_output(asked.output) as write:
            write(msgspec.json.encode(told) + b"\n")
    elif asked.as_json or not common.on_terminal():
        common.print_json(told)
    else:
        from selfrefine.report.reflected import reflection_view

        common.show(reflection_view(found, made))
    return told


def _in_run(session: RunSession, k: int) -> dict[str, Any]:
    from selfrefine.stages.reflect import reflect

    found = reflect(session, k)
    assert found is not None  # by_hand.require_before
    return {"weak": found.weak, "plan": found.plan}


VERB = Verb(
    name="reflect",
    about="""Show what a run or scored samples fail at, and what a next round could try.

    SOURCE is a run, by name or folder, finished or not: its gate and training answers are looked at, never
    its test split. What is found goes into the run's folder reflection/; its rounds stay as they are. Or it
    is a file of scored samples, - for stdin. With --run, do this stage of a run's next round.

    \b
      selfrefine reflect demo --no-causes
      selfrefine reward in.jsonl -r numeric | selfrefine reflect
    """,
    flags=(
        Flag(
            "reflect.causes",
            "Of a run: ask its critic what goes wrong. Without, no model is loaded. [on]",
            ("--causes/--no-causes",),
        ),
        Flag("select.min_reward", "Of rows: reward from which on an answer is right. [1]"),
    ),
    filter=_filter,
    in_run=_in_run,
    output=Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the JSON object to this file.",
            rich_help_panel=OUTPUT,
        ),
    ],
    output_default=None,
)
