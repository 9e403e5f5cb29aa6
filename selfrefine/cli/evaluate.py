"""`selfrefine evaluate`: a policy's score on tasks, with an interval. Alone, or on a run's held-out split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfrefine.cli import common
from selfrefine.cli.help import OUTPUT
from selfrefine.cli.verb import Asked, Flag, Verb

if TYPE_CHECKING:
    from selfrefine.config import Config
    from selfrefine.stages.session import RunSession


def _check(config: Config) -> None:
    from selfrefine.errors import UsageError
    from selfrefine.steps.scoring import measuring_specs

    if not config.evaluate.measure:
        raise UsageError("no measure: name a reward, such as -m numeric (`selfrefine rewards ls`)")
    measuring_specs(config)


def _filter(asked: Asked) -> dict[str, Any]:
    import msgspec

    from selfrefine.cli.stream import filtered, read_tasks
    from selfrefine.report.words import with_interval
    from selfrefine.stages.measure import Measure, Measured, MeasureSummary
    from selfrefine.stats import interval
    from selfrefine.words import count

    class Alone(Measure):
        def summary(self, total: Measured) -> MeasureSummary:
            found = super().summary(total)
            # Of a seed of one's own; a run's measures are drawn alike, whatever its seed.
            mean = interval(list(total.values.values()), seed=self.session.config.seed)
            return msgspec.structs.replace(found, mean=mean)

    def line(found: Any, _: Any) -> str:
        mean, own = found.mean, asked.settings.config.evaluate
        said = f"evaluate: {with_interval(mean)} on {count(mean.n, 'task')}, {mean.unscored:,} unscored"
        if not own.best_of:
            return said
        read = f" and {found.scored_tokens:,} scored" if found.scored_tokens else ""
        return f"{said}; best of {own.best_of} by {own.by}, {found.cost.tokens:,} tokens sampled{read}"

    tasks = list(read_tasks(asked.source))
    stage = Alone(asked.session)
    found: Any = filtered(asked, stage, tasks, line, stage.expected(tasks))
    summary = {
        "stage": "evaluate",
        "policy": asked.session.engine.policy,
        **msgspec.to_builtins(found.mean),
        "rewards": common.figures(found.rewards),
    }
    if (own := asked.settings.config.evaluate).best_of:
        tokens = {"tokens": found.cost.tokens, "scored_tokens": found.scored_tokens}
        summary |= {"best_of": own.best_of, "by": own.by, **tokens}
    if asked.output is None and (asked.as_json or not common.on_terminal()):
        common.print_json(summary)  # on a terminal the line above says it
    return summary


def _in_run(session: RunSession, k: int) -> dict[str, Any]:
    from selfrefine.report.words import with_interval
    from selfrefine.stages.measure import measure

    folder = session.run.round(k)
    found = measure(session, folder, "gate", folder.adapter)
    return {"gate": with_interval(found), "n": found.n, "unscored": found.unscored}


VERB = Verb(
    name="evaluate",
    about="""Measure a policy on tasks: mean reward with a 95 % interval, of greedy answers by default.

    With --best-of, measure the answer that is chosen among that many samples of a task.
    With --run, measure the candidate of the next round on the run's gate tasks.

    \b
      selfrefine tasks gym:chain_sum --seed 1 -n 200 |
          selfrefine evaluate -m gym --adapter adapter
      selfrefine evaluate t.jsonl -m gym --temperature 1 --best-of 8 --by p-true
    """,
    flags=(
        Flag(
            "evaluate.measure",
            "Measure by this reward. Repeatable.",
            ("-m", "--measure", "-r"),
            metavar="NAME[:W]",
        ),
        Flag("evaluate.n", names=("-n",)),
        Flag("evaluate.best_of", "Measure the best of this many samples, as --by chooses it."),
        Flag(
            "evaluate.by",
            "What chooses with --best-of: majority (of final answers), p-true (the model's probability that "
            "an answer is right), critic (the critic's), or weighted-vote (majority and p-true). [majority]",
        ),
        Flag("evaluate.temperature"),
        Flag("evaluate.max_new_tokens", "Longest answer, in tokens. [128]"),
        Flag("generate.system", metavar="TEXT"),
    ),
    filter=_filter,
    check=_check,
    in_run=_in_run,
    output=Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the scored answers to this file.",
            rich_help_panel=OUTPUT,
        ),
    ],
    output_default=None,
)
