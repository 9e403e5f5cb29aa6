"""`selfrefine reward`: answers in, scored answers out. Loads no model unless a chosen reward needs one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfrefine.cli.guard import say
from selfrefine.cli.verb import Asked, Flag, Verb

if TYPE_CHECKING:
    from selfrefine.config import Config


def _filter(asked: Asked) -> Any:
    from selfrefine.cli.stream import filtered, read_samples
    from selfrefine.stages.reward import Reward

    if asked.own["selftest"] is not None:
        return _selftest(asked, asked.own["selftest"])
    return filtered(asked, Reward(asked.session), read_samples(asked.source))


def _selftest(asked: Asked, path: str) -> dict[str, Any]:
    from selfrefine.errors import DataError
    from selfrefine.runfolder.jsonl import open_input
    from selfrefine.steps.reward import selftest, selftest_rows

    asked.reporter.stop.at_once, asked.reporter.stop.way_on = True, "the self-test has no result"
    with open_input(path) as stream:
        rows = selftest_rows(stream, path)
    problems = selftest(rows, asked.session.scorers, asked.settings.config.reward.gate_on)
    if problems:
        raise DataError("self-test failed:\n" + "\n".join(problems[:20]))
    say(f"selftest: {len(rows):,} rows, every good answer scores higher than every bad one")
    return {"rows": len(rows)}


def _check(config: Config) -> None:
    from selfrefine.steps.scoring import trained_specs

    trained_specs(config)


VERB = Verb(
    name="reward",
    about="""Score answers: in [0, 1], higher is better, and null with a reason where there is no score.

    \b
      selfrefine reward samples.jsonl -r numeric > scored.jsonl
      selfrefine reward a.jsonl -r coverage -r chrf --gate-on coverage > b.jsonl
      selfrefine reward --selftest known.jsonl -r my_reward.py:score
    """,
    flags=(
        Flag(
            "reward.use",
            "A name from `selfrefine rewards ls`, or path/to/file.py:function. Repeatable.",
            ("-r", "--reward"),
            metavar="NAME[:WEIGHT]",
        ),
        Flag("reward.gate_on", "Count the other rewards only where this one passes.", metavar="NAME"),
        Flag(
            "selftest",
            'Rows with "label": good or bad. Fails unless good answers score higher.',
            metavar="FILE",
            config=False,
        ),
    ),
    filter=_filter,
    check=_check,
)
