"""`selfrefine reward`: answers in, scored answers out. Loads no model unless a chosen reward needs one."""

from __future__ import annotations

import sys
from typing import Any

from selfrefine.cli.verb import Asked, Flag, Verb


def _filter(asked: Asked) -> Any:
    from selfrefine.cli.stream import filtered, read_samples
    from selfrefine.stages.reward import Reward
    from selfrefine.steps.scoring import trained_specs

    trained_specs(asked.settings.config)  # without any, no row is read
    if asked.own["selftest"] is not None:
        return _selftest(asked, asked.own["selftest"])
    return filtered(asked, Reward(asked.session), read_samples(asked.source))


def _selftest(asked: Asked, path: str) -> dict[str, Any]:
    from selfrefine.errors import DataError
    from selfrefine.runfolder.jsonl import open_input
    from selfrefine.steps.reward import selftest, selftest_rows

    with open_input(path) as stream:
        rows = selftest_rows(stream, path)
    problems = selftest(rows, asked.session.scorers, asked.settings.config.reward.gate_on)
    if problems:
        raise DataError("the rewards fail their self-test:\n" + "\n".join(problems[:20]))
    sys.stderr.write(f"selftest: {len(rows)} rows, every good answer scores above every bad one\n")
    return {"rows": len(rows)}


VERB = Verb(
    name="reward",
    about="""Answers get scores: each in [0, 1], higher is better, null with a reason where there is none.

    \b
      selfrefine reward samples.jsonl -r numeric > scored.jsonl
      selfrefine reward samples.jsonl -r coverage -r sentence --gate-on coverage > scored.jsonl
      selfrefine reward --selftest known.jsonl -r my_reward.py:score
    """,
    flags=(
        Flag(
            "reward.use",
            "A name of `selfrefine rewards ls`, or path/to/file.py:function. Repeatable.",
            ("-r", "--reward"),
            metavar="NAME[:WEIGHT]",
        ),
        Flag("reward.gate_on", "The others count only where this reward passes.", metavar="NAME"),
        Flag(
            "selftest",
            'Rows with "label": good or bad; fails when good is not above bad.',
            metavar="FILE",
            config=False,
        ),
    ),
    filter=_filter,
)
