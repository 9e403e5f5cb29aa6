"""`selfrefine generate`: tasks in, the model's answers out."""

from __future__ import annotations

import time
from typing import Any

from selfrefine.cli.verb import Asked, Flag, Verb


def _filter(asked: Asked) -> dict[str, Any]:
    from selfrefine.cli.common import table
    from selfrefine.cli.stream import filtered, read_tasks
    from selfrefine.report.words import summary_line
    from selfrefine.stages.generate import Generate

    began = time.monotonic()

    def told(summary: Any) -> dict[str, Any]:
        rate = summary.tokens / max(time.monotonic() - began, 1e-9)
        return table("generate", summary) | {"tokens_per_s": round(rate, 1)}

    found = filtered(
        asked, Generate(asked.session), read_tasks(asked.source), lambda summary: summary_line(told(summary))
    )
    return told(found)


VERB = Verb(
    name="generate",
    about="""The model answers: tasks (JSON Lines) in, one row per sampled answer out.

    Prompts are computed once for all their samples. A sample depends on seed, task id and index only.

    \b
      selfrefine tasks gym:chain_sum -n 16 | selfrefine generate -n 8 --max-new-tokens 24 > samples.jsonl
    """,
    flags=(
        Flag("generate.n", "Samples per prompt. [8]", ("-n",), int),
        Flag("generate.temperature", "0 is greedy. [1.0]", kind=float),
        Flag("generate.top_p", "Nucleus sampling; 1 is off. [1.0]", kind=float),
        Flag("generate.top_k", "Only the k most likely tokens; 0 is off. [0]", kind=int),
        Flag("generate.max_new_tokens", "Longest answer. [128]", kind=int),
        Flag("generate.stop", "End an answer before this text. Repeatable.", kind=list[str]),
        Flag("generate.system", "System message for prompts without one."),
    ),
    filter=_filter,
)
