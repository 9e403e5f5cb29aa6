"""Asking an engine: a completion for every seed of every chat, in order."""

from __future__ import annotations

from collections.abc import Sequence

from selfrefine.config import Sampling
from selfrefine.engines.base import Completion, Engine, Request
from selfrefine.errors import EngineError
from selfrefine.records import Message


def ask(
    engine: Engine,
    chats: Sequence[tuple[Message, ...]],
    seeds: Sequence[tuple[int, ...]],
    sampling: Sampling,
    known: Sequence[tuple[int, ...]] | None = None,
) -> list[tuple[tuple[int, ...], list[Completion]]]:
    """Per chat its prompt ids and a completion per seed, whatever order the engine finishes them in.

    `known`: the prompt ids of each chat, empty where it is still to be encoded.
    Raises: EngineError where the engine leaves an answer out.
    """
    requests = [
        Request(prompt_token_ids=ids or engine.encode_chat(chat), seeds=own, messages=chat)
        for chat, own, ids in zip(chats, seeds, known or [()] * len(chats), strict=True)
    ]
    batches = engine.generate(requests, sampling) if requests else ()
    answers = {(answer.request, answer.index): answer for batch in batches for answer in batch}
    if len(answers) != sum(map(len, seeds)):
        raise EngineError(f"{engine.signature}: {len(answers)} answers to {sum(map(len, seeds))} requests")
    return [
        (request.prompt_token_ids, [answers[i, k] for k in range(len(request.seeds))])
        for i, request in enumerate(requests)
    ]
