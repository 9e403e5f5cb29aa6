"""`selfrefine select`: scored answers in, those worth learning from out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfrefine.cli.verb import Asked, Flag, Verb

if TYPE_CHECKING:
    from selfrefine.config import Config

CHOOSING = (
    Flag(
        "select.strategy",
        "What to select: best-of-n, threshold, all, pairs, labels, or groups. [best-of-n]",
        ("--select",),
        metavar="NAME",
    ),
    Flag("select.min_reward", "Lowest reward to learn from."),
    Flag("select.max_per_prompt", "At most this many answers per prompt. [1 for best-of-n]"),
    Flag(
        "select.learn", "What to learn: answers, revisions, critiques, both, details, or verdicts. [answers]"
    ),
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
    about="""Select the answers to learn from, and count the others by reason.

    best-of-n takes the best answer to a prompt if it is better than the worst, or reaches --min-reward.
    Unscored rows are never selected, truncated ones only by groups, for policy gradients. Each row says what
    it teaches (`lesson`). With --learn verdicts that is not an answer but the judgement of one: Yes or No to
    the question that the reward p-true asks, from as many right answers as wrong ones.

    \b
      selfrefine select in.jsonl --min-reward 1 --max-per-prompt 2 > out.jsonl
      selfrefine select in.jsonl --select pairs --set select.margin=0.2 > p.jsonl
      selfrefine select in.jsonl --select all --learn verdicts > judge.jsonl
    """,
    flags=(
        *CHOOSING,
        Flag(
            "select.dedupe",
            "Count equal answers to a prompt once. [on]",
            ("--dedupe/--no-dedupe",),
        ),
    ),
    filter=_filter,
    check=check,
    asks_model=False,
)
