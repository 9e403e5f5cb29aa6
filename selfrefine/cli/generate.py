"""`selfrefine generate`: tasks in, the model's answers out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfrefine.cli.verb import Asked, Flag, Verb

if TYPE_CHECKING:
    from selfrefine.report.console import Progress


def _filter(asked: Asked) -> dict[str, Any]:
    from selfrefine.cli.common import table
    from selfrefine.cli.stream import filtered, read_tasks
    from selfrefine.report.words import summary_line
    from selfrefine.stages.generate import Generate

    told: dict[str, Any] = {}

    def line(summary: Any, bar: Progress) -> str:
        told.update(table("generate", summary), tokens_per_s=round(bar.tokens_per_s, 1))
        return summary_line(told)

    filtered(asked, Generate(asked.session), read_tasks(asked.source), line)
    return told


VERB = Verb(
    name="generate",
    about="""Sample answers: tasks (JSON Lines) in, one row per answer out.

    Each prompt is computed once for all its samples. A sample depends only on the seed, the task's id and its
    own index.

    With --best-of one answer to each prompt is written, chosen among that many samples; its column `best_of`
    says how it was chosen, and the summary counts the tokens of all.

    \b
      selfrefine tasks gym:chain_sum -n 16 |
          selfrefine generate -n 8 --max-new-tokens 24 > samples.jsonl
      selfrefine generate tasks.jsonl --best-of 8 --by p-true > answers.jsonl
    """,
    flags=(
        Flag("generate.n", names=("-n",)),
        Flag("generate.best_of", "Write the best of this many samples, as --by chooses it."),
        Flag(
            "generate.by",
            "What chooses with --best-of: majority (of final answers), p-true (the model's probability that "
            "an answer is right), critic (the critic's), or weighted-vote (majority and p-true). [majority]",
        ),
        Flag("generate.temperature"),
        Flag("generate.top_p"),
        Flag("generate.top_k"),
        Flag("generate.min_p"),
        Flag("generate.repetition_penalty"),
        Flag("generate.max_new_tokens"),
        Flag("generate.stop", metavar="TEXT"),
        Flag("generate.system", metavar="TEXT"),
    ),
    filter=_filter,
)
