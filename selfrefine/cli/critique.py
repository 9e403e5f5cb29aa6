"""`selfrefine critique`: answers in, the same rows with critiques and their revisions out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfrefine.cli.verb import Asked, Flag, Verb

if TYPE_CHECKING:
    from selfrefine.stages.session import RunSession


def _filter(asked: Asked) -> Any:
    from selfrefine.cli.stream import filtered, read_samples
    from selfrefine.errors import UsageError
    from selfrefine.report.criticised import critic_lines
    from selfrefine.report.words import critique_line
    from selfrefine.stages.critique import Critique

    if asked.settings.config.critique.passes == 0 and asked.settings.origins["critique.passes"] == "flag":
        raise UsageError("--passes 0 makes no critique: leave out this stage")
    return filtered(
        asked,
        Critique(asked.session),
        read_samples(asked.source),
        lambda found, _: "\n".join([critique_line(found), *(f"  {line}" for line in critic_lines(found))]),
    )


def _in_run(session: RunSession, k: int) -> Any:
    from selfrefine.stages.critique import Critique
    from selfrefine.stages.in_run import in_run

    return in_run(Critique(session, k), session, session.run.round(k))


VERB = Verb(
    name="critique",
    about="""Criticise answers and revise them, and say whether that helped.

    The summary compares revisions with fresh samples at the same token cost, and counts for each pass how
    many answers went from wrong to right and from right to wrong. A revision is a row of its own
    (`parent_id`). What is judged right is not revised.

    \b
      selfrefine critique in.jsonl -r coverage --feedback rewards > revised.jsonl
      selfrefine critique in.jsonl -r coverage --critique-source rewards > t.jsonl
      selfrefine critique in.jsonl --critique-source coverage --revise-from fault
    """,
    flags=(
        Flag(
            "reward.use",
            "Score drafts and revisions with this reward. Repeatable.",
            ("-r", "--reward"),
            metavar="NAME[:W]",
        ),
        Flag("critique.passes", "Critique and revise an answer at most this often. [1]"),
        Flag(
            "critique.feedback", "What the critic is told: none, or rewards (what they found missing). [none]"
        ),
        Flag(
            "critique.source",
            "What criticises: model, rewards (word for word what they found), one reward, or "
            "file.py:function. [model]",
            ("--critique-source",),
        ),
        Flag(
            "critique.critics",
            "Several critics that vote, instead of one --critique-source. Repeatable.",
            metavar="NAME",
        ),
        Flag(
            "critique.verdict",
            "How a model's verdict is had: written (parsed), or scored (from its probabilities). [written]",
        ),
        Flag("critique.critic_model", "Model that criticises. [the policy itself]"),
        Flag(
            "critique.critique_prompt",
            "Template of a critique: critique, rubric, reflect, or a file. [critique]",
        ),
        Flag("critique.revise_prompt", "Template of a revision: revise, mend, retry, or a file. [revise]"),
        Flag(
            "critique.revise_from",
            "Where a revision begins: start, or fault (go on from the first one, where rewards place it). "
            "[start]",
        ),
        Flag(
            "critique.reveal_references",
            "Show the critic the references. The rows record it.",
            ("--reveal-references",),
        ),
        Flag(
            "critique.max_new_tokens",
            "Longest critique and revision, in tokens. [128]",
            also="generate.max_new_tokens",
        ),
    ),
    filter=_filter,
    in_run=_in_run,
)
