"""A revision that keeps what stands before the fault, and goes on from there.

Where a critic places the first fault (a wrong step, the line that does not compile), what comes before it is
right, and writing it anew could only spoil it. The ids that were sampled are kept, up to the last token that
ends before the fault; the policy continues them under the task's own prompt, and what it then says is a whole
answer. Only what is sampled anew counts as cost.

Source: Tyen et al. 2024, "LLMs cannot find reasoning errors, but can correct them given the error location",
arXiv:2311.08516 (backtracking to the first mistake).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import replace

from selfrefine.config import Sampling
from selfrefine.engines.base import Engine, Tokeniser
from selfrefine.records import Sample

KEPT = "kept_tokens"
"""Column of such a revision: how many of its tokens are its draft's."""


def kept_ids(row: Sample, keep: int, tokeniser: Tokeniser) -> tuple[int, ...] | None:
    """The beginning of a row's ids that ends at character `keep` or, inside a token, before that; of a fault
    at the very beginning none.

    None where the ids are not this text's: it was edited, or another tokenizer's model sampled it.
    """
    if tokeniser.decode(row.token_ids) != row.text:
        return None
    best, longest = 0, 0
    for n in range(1, len(row.token_ids) + 1):
        text = tokeniser.decode(row.token_ids[:n])
        if len(text) > keep:
            break
        # Half a character decodes to a replacement: not yet a beginning of the text. An end marker adds none.
        if len(text) > longest and row.text.startswith(text):
            best, longest = n, len(text)
    return row.token_ids[:best]


class Resume(NamedTuple):
    """Ids: the prompt that a draft answers, and what of the text is kept."""

    prompt: tuple[int, ...]
    kept: tuple[int, ...]

    def fits(self, engine: Engine, sampling: Sampling) -> bool:
        """Else the engine would refuse a draft that it could write, and the thread would end."""
        return len(self.prompt) + len(self.kept) + sampling.max_new_tokens <= engine.context_tokens


def resume(draft: Sample, row: Sample, keep: int, engine: Engine) -> Resume | None:
    """`row`: the draft or its last revision; None where its ids are not its text's."""
    kept = kept_ids(row, keep, engine)
    if kept is None:
        return None
    own = draft.policy == engine.policy  # another policy's ids may be another vocabulary's
    return Resume((draft.prompt_token_ids if own else ()) or engine.encode_chat(draft.context), kept)


def resumed(row: Sample, begun: Resume, engine: Engine) -> Sample:
    """A continuation as the whole answer. Its logprobs would be those of its end alone, and go."""
    prompt, kept = begun
    if row.finish_reason == "error":
        return replace(row, prompt_token_ids=prompt)
    ids = (*kept, *row.token_ids)
    # Together, since some tokenizers drop the space that a text begins with; a stop text is in no ids.
    whole = engine.decode(row.token_ids) == row.text
    text = engine.decode(ids) if whole else engine.decode(kept) + row.text
    column = {KEPT: Raw(msgspec.json.encode(len(kept)))}
    return replace(row, prompt_token_ids=prompt, token_ids=ids, text=text, logprobs=None, extra=column)


def is_resumed(row: Sample) -> bool:
    return isinstance(row.extra, dict) and KEPT in row.extra


def n_sampled(row: Sample) -> int:
    """The tokens of a row that were sampled for it."""
    column = row.extra.get(KEPT) if row.extra is not UNSET else None
    return row.sampled_tokens - (msgspec.json.decode(column, type=int) if column is not None else 0)
