"""How many fresh samples the critiques and revisions of a draft would have paid for.

n = cost / mean length, at least 1 and at most MAX_FRESH: cost is the sampled tokens of all its critiques and
revisions, and mean length is over the drafts of the same task, or over a single draft and its revisions. n is
fixed before the first fresh sample: drawing "until the tokens are used up" would stop late after short
answers and early after long ones, and where wrong answers are longer (or shorter) the mean would be biased.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfrefine.engines.base import Tokeniser, from_server
from selfrefine.errors import EngineError
from selfrefine.records import Sample

MAX_FRESH = 64


def fresh_counts(
    threads: Sequence[tuple[Sequence[Sample], int]], drafts: Sequence[Sample], tokeniser: Tokeniser
) -> list[int]:
    """For each revised draft. threads: a draft with its revisions, and what they cost; drafts: all, those too
    that were not revised.

    Raises: EngineError where a server does not say how many tokens it took.
    """
    if any(_uncounted(rows) for rows, _ in threads):
        raise EngineError(
            "a server tells neither ids nor a count of its tokens, so what critiques and revisions cost "
            "cannot be compared; set critique.control = false"
        )
    lengths: dict[str, list[int]] = {}
    for draft in drafts:
        n_tokens = draft.sampled_tokens or len(tokeniser.encode_answer(draft.text))
        lengths.setdefault(draft.task.id, []).append(n_tokens)
    counts = []
    for rows, cost_tokens in threads:
        known = lengths[rows[0].task.id]
        if len(known) == 1:
            # One short draft is no measure of a task: it would buy far more fresh samples than were paid for
            # (seen with one draft each on 100 tasks: 27,753 tokens drawn for a cost of 13,267).
            known = known + [row.sampled_tokens for row in rows[1:]]
        counts.append(n_fresh(cost_tokens, known))
    return counts


def n_fresh(cost_tokens: int, draft_lengths: Sequence[int]) -> int:
    """How many fresh samples `cost_tokens` would pay for: to the nearest, within 1 and MAX_FRESH."""
    mean_length = sum(draft_lengths) / len(draft_lengths)
    return min(max(1, round(cost_tokens / mean_length)), MAX_FRESH)


def _uncounted(rows: Sequence[Sample]) -> bool:
    """Was something of a thread sampled by a server that does not say how many tokens it took? Taken for 0,
    they would buy too few fresh samples."""
    said = [(row.engine, row.text, row.sampled_tokens) for row in rows[1:]]
    said += [
        (one.critic, one.text, one.sampled_tokens)
        for row in rows
        for told in row.critiques
        for one in told.voices
    ]
    return any(text and not tokens and from_server(who) for who, text, tokens in said)
