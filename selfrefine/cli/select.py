"""`selfrefine select`: scored answers in, those worth learning from out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfrefine.cli.verb import Asked, Flag, Verb

if TYPE_CHECKING:
    from selfrefine.config import Config

CHOOSING = (
    Flag(
        "select.strategy",
        "best-of-n, threshold, all, pairs, labels, groups. [best-of-n]",
        ("--select",),
        metavar="NAME",
    ),
    Flag("select.min_reward", "Take rows of at least this reward."),
    Flag("select.max_per_prompt", "At most this many a prompt. [1 for best-of-n]"),
    Flag("select.learn", "answers, revisions, critiques or both turns. [answers]"),
)
"""`finetune` has them too: it selects first."""


def check(config: Config) -> None:
    from selfrefine.steps import select

    select.check(config.select)


def _filter(asked: Asked) -> Any:
    from selfrefine.cli.stream import filtered, read_samples
    from selfrefine.errors import NothingSelectedError
    from selfrefine.report.words import summary_line
    from selfrefine.stages.select import Select

    try:
        return filtered(asked, Select(asked.session), read_samples(asked.source))
    except NothingSelectedError as empty:
        asked.reporter.say(summary_line({"stage": "select", **empty.counts}))
        raise


VERB = Verb(
    name="select",
    about="""Choose what to learn from, and count what falls out and why.

    best-of-n takes what lies above its group's minimum, or reaches --min-reward. Unscored rows never get
    through, truncated ones only with the groups of a policy gradient. Each row says what it teaches.

    \b
      selfrefine select in.jsonl --min-reward 1 --max-per-prompt 2 > out.jsonl
      selfrefine select in.jsonl --select pairs --set select.margin=0.2 > p.jsonl
    """,
    flags=(
        *CHOOSING,
        Flag(
            "select.dedupe",
            "Equal answers to a prompt count once. [on]",
            ("--dedupe/--no-dedupe",),
        ),
    ),
    filter=_filter,
    check=check,
    asks_model=False,
)
