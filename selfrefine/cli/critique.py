"""`selfrefine critique`: answers in, the same rows with critiques and their revisions out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfrefine.cli.verb import Asked, Flag, Verb

if TYPE_CHECKING:
    from selfrefine.stages.session import RunSession


def _filter(asked: Asked) -> Any:
    from selfrefine.cli.stream import filtered, read_samples
    from selfrefine.errors import UsageError
    from selfrefine.report.words import critique_line
    from selfrefine.stages.critique import Critique

    if asked.settings.config.critique.passes == 0 and asked.settings.origins["critique.passes"] == "flag":
        raise UsageError("--passes 0 makes no critique: leave the stage out")
    return filtered(asked, Critique(asked.session), read_samples(asked.source), critique_line)


def _in_run(session: RunSession, k: int) -> Any:
    from selfrefine.stages.critique import Critique
    from selfrefine.stages.in_run import in_run

    return in_run(Critique(session, k), session, session.run.round(k))


VERB = Verb(
    name="critique",
    about="""The model criticises its answers and revises them; the summary says whether that helped.

    It compares revised answers with fresh samples of the same token cost, and counts wrong→right and
    right→wrong for each pass. Revisions are rows of their own (`parent_id`).

    \b
      selfrefine critique in.jsonl -r coverage --feedback rewards > revised.jsonl
    """,
    flags=(
        Flag(
            "reward.use",
            "Score drafts and revisions. Repeatable.",
            ("-r", "--reward"),
            metavar="NAME[:W]",
        ),
        Flag("critique.passes", "Critique and revise this often, until ok. [1]"),
        Flag("critique.feedback", "rewards: the critic sees what the rewards found missing. [none]"),
        Flag("critique.critic_model", "Model that criticises. Not set: the policy itself."),
        Flag("critique.critique_prompt", "critique, rubric, or a template file."),
        Flag("critique.revise_prompt", "revise, or a template file."),
        Flag(
            "critique.reveal_references",
            "The critic sees the references; marked.",
            ("--reveal-references",),
        ),
        Flag(
            "critique.max_new_tokens",
            "Longest critique and revision. [128]",
            also="generate.max_new_tokens",
        ),
    ),
    filter=_filter,
    in_run=_in_run,
)
