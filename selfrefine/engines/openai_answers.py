"""From the body of an answer to a completion, or to the reason why it is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from selfrefine.engines.base import Completion, refused
from selfrefine.engines.openai_http import Clean, Fault, what_text

MOST_TOKENS = 1 << 31
"""Of an answer, and of a vocabulary: other numbers are none that rows could be read with."""


class Message(Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None


class Token(Struct):
    token: str = ""
    logprob: float | None = None
    id: int | None = None
    """llama.cpp only."""


class Logprobs(Struct):
    content: list[Token] | None = None


class Choice(Struct):
    message: Message = msgspec.field(default_factory=Message)
    finish_reason: str | None = None
    logprobs: Logprobs | None = None

    @property
    def tokens(self) -> list[Token]:
        return (self.logprobs and self.logprobs.content) or []


class Usage(Struct):
    completion_tokens: int | None = None


class Reply(Struct):
    choices: list[Choice]
    usage: Usage | None = None


def reply(body: bytes, clean: Clean = str) -> Reply:
    """`clean`: see `Server`. Raises: Fault for a body that is no chat completion, which is not asked for
    again."""
    try:
        found = msgspec.json.decode(body, type=Reply)
    except msgspec.ValidationError as error:
        raise Fault(f"the answer is no chat completion: {clean(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = what_text(body.decode(errors="replace").strip(), clean)
        raise Fault(f"the answer is {said}") from None
    if not found.choices:
        raise Fault("the answer has no choices")
    return found


def completion(request: int, index: int, found: Reply, stop: Sequence[str], clean: Clean = str) -> Completion:
    """The first choice. Cut before a text of `stop` that the server did not heed.

    Ids and logprobs are kept where they are the whole answer: of one that a stop text ended the token that
    ends a turn is not known, and trained on as they are they would teach the model to go on.
    """
    choice = found.choices[0]
    if why := _none(choice, clean):
        return refused(request, index, why)
    text = choice.message.content or ""
    ended = choice.finish_reason == "stop"
    cut = min((at for one in stop if (at := text.find(one)) >= 0), default=-1)
    tokens = choice.tokens if cut < 0 else []
    if cut >= 0:
        text, ended = text[:cut], True
    ids, logprobs = _sampled(tokens, text, ended=ended)
    said = found.usage.completion_tokens if found.usage and len(found.choices) == 1 else None
    if said is not None and not 0 < said < MOST_TOKENS:  # no count of this text
        said = None
    return Completion(
        request=request,
        index=index,
        text=text,
        token_ids=ids,
        logprobs=logprobs,
        finish_reason="stop" if ended else "length",
        counted_tokens=None if ids else said,
    )


def _none(choice: Choice, clean: Clean) -> str | None:
    """Why a choice is no answer."""
    said, reason = choice.message, choice.finish_reason
    if said.refusal:
        return f"the server refused: {' '.join(clean(said.refusal).split())[:200]}"
    if reason == "content_filter":
        return "the server refused (finish_reason content_filter)"
    if reason not in ("stop", "length"):
        return f"the answer did not end as an answer does (finish_reason {clean(str(reason))[:50]})"
    if not said.content:
        thought = "; all its tokens went into reasoning" if said.reasoning_content else ""
        return f"the answer is empty (finish_reason {reason}{thought})"
    return None


def _sampled(
    tokens: Sequence[Token], text: str, *, ended: bool
) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """Ids and logprobs (nats). None of an answer whose ids are not exactly its text and, where it has ended,
    the token that ends it."""
    ids = [one.id for one in tokens if one.id is not None and 0 <= one.id < MOST_TOKENS]
    logprobs = [one.logprob for one in tokens if one.logprob is not None and _is_logprob(one.logprob)]
    said = "".join(one.token for one in tokens)
    whole = bool(ids) and len(ids) == len(tokens) and (not ended or tokens[-1].token == "")
    # Half a character in a token stands there as a replacement.
    if not whole or (said != text and "\ufffd" not in said):
        return (), None
    return tuple(ids), tuple(logprobs) if len(logprobs) == len(ids) else None


def _is_logprob(value: float) -> bool:
    return math.isfinite(value) and value <= 0


def told(body: bytes) -> Any:
    """Any JSON, for what is looked at field by field; None where it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
