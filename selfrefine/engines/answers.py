"""From decoded rows to completions: where an answer ends, and what of it was sampled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from selfrefine.engines.base import Completion, Request, Tokeniser, refused
from selfrefine.engines.tokeniser import LocalTokeniser
from selfrefine.records import FinishReason
from selfrefine.sampling.decode import Live


def at_stop_text(tokeniser: Tokeniser, stop: Sequence[str]) -> Callable[[Live], bool]:
    """Does a row's text so far contain one of these? Asked after each of its tokens."""
    # The last few tokens are enough: a stop string ends in the newest one. Bytes, not characters: a
    # byte-level vocabulary may spend several tokens on one character.
    longest = max(len(s.encode()) for s in stop)

    def met(row: Live) -> bool:
        tail = tokeniser.decode(row.token_ids[-(longest + 8) :])
        return any(s in tail for s in stop)

    return met


def completion(
    row: Live, tokeniser: LocalTokeniser, stop: Sequence[str], stop_ids: Collection[int]
) -> Completion:
    """What a finished row says, cut before the first of the `stop` texts."""
    ids, logprobs = row.token_ids, row.logprobs
    ended = ids[-1] in stop_ids
    text = tokeniser.decode(ids[:-1] if ended else ids)
    reason: FinishReason = "stop" if ended else "length"
    at = min((p for s in stop if (p := text.find(s)) >= 0), default=-1)
    if at >= 0:
        text, reason = text[:at], "stop"
        ids, logprobs = _cut(ids, logprobs, text, tokeniser)
    return Completion(
        request=row.request,
        index=row.index,
        text=text,
        token_ids=tuple(ids),
        logprobs=tuple(logprobs),
        finish_reason=reason,
    )


def _cut(
    ids: Sequence[int], logprobs: Sequence[float], text: str, tokeniser: LocalTokeniser
) -> tuple[list[int], list[float]]:
    """Ids that decode to `text`, a beginning of what `ids` say, and the logprobs of those that were sampled.

    Where a token straddles the end its part before it is encoded anew; such tokens and the end-of-turn were
    not sampled and have no logprob.
    """
    keep = max(k for k in range(len(ids) + 1) if text.startswith(tokeniser.decode(ids[:k])))
    tail = tokeniser.continued(ids[:keep], text[len(tokeniser.decode(ids[:keep])) :])
    if tail is None:  # as bytes of a character may be
        return list(tokeniser.encode_answer(text)), []
    return [*ids[:keep], *tail, tokeniser.end_id], list(logprobs[:keep])


def refusals(at: int, request: Request, new_tokens: int, context_tokens: int) -> list[Completion]:
    """Error completions where the prompt is empty or leaves no room; none where it can be answered."""
    length = len(request.prompt_token_ids)
    if length and length + new_tokens <= context_tokens:
        return []
    why = "the prompt is empty"
    if length:
        why = (
            f"the prompt has {length:,} tokens and max_new_tokens is {new_tokens:,}, "
            f"but the model's context holds {context_tokens:,}"
        )
    return [refused(at, index, why) for index in range(len(request.seeds))]
