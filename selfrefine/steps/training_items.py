"""From a row to what training sees of it: the ids that were sampled, their logprobs, what they teach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from selfrefine.engines.base import Tokeniser, exact_logprobs, from_server
from selfrefine.prompts import Template
from selfrefine.records import Lesson, Sample
from selfrefine.steps.teacher import teacher_prompt


def items(
    samples: Sequence[Sample],
    tokeniser: Tokeniser,
    *,
    exact: bool = True,
    teacher: Template | None = None,
) -> tuple[list[Any], int, int]:
    """Training items of the rows; how many texts were encoded anew because they had been edited, and how many
    because another model, with another tokenizer, sampled them.

    exact: the model that is trained computes in float32 (`Trainer.exact_logprobs`); if it does not, no
    recorded logprob is what it would compute, and the items have none. teacher: what a teacher is asked.

    The ids that were sampled are what is trained on; a chat rendered and tokenised again may differ. A text
    that its ids no longer decode to was edited on the way (jq, a person): the text counts.
    """
    made, edited, foreign = [], 0, 0
    for row, item in zip(samples, lessons(samples), strict=True):
        prompt, completion = row.prompt_token_ids, row.token_ids
        logprobs = _old_logprobs(row) if exact else None
        if not completion or tokeniser.decode(completion) != row.text:
            if (completion and from_server(row.engine)) or _is_foreign(row, tokeniser):
                foreign, prompt = foreign + 1, ()
            else:
                edited += bool(completion)
            completion, logprobs = tokeniser.encode_answer(row.text), None
        prompt = prompt or tokeniser.encode_chat(row.context)
        asked = teacher_prompt(row, teacher) if teacher else ()
        ids = {
            "prompt_token_ids": prompt,
            "completion_token_ids": completion,
            "teacher_prompt_token_ids": tokeniser.encode_chat(asked) if asked else (),
        }
        made.append(replace(item, **ids, old_logprobs=logprobs))
    return made, edited, foreign


def _is_foreign(row: Sample, tokeniser: Tokeniser) -> bool:
    """Whether the prompt's ids are another tokenizer's: neither made by this one nor decoded to the question.

    The second is for a template that writes the day into a prompt, which differs tomorrow.
    """
    ids = row.prompt_token_ids
    if not ids or not row.context or ids == tokeniser.encode_chat(row.context):
        return False
    return row.context[-1].content.strip() not in tokeniser.decode(ids)


def equal_pairs(samples: Sequence[Sample]) -> set[str]:
    """The pairs whose two texts are the same: they prefer nothing, and still have a loss to report.

    The same to the last character, since white space may be what a pair is about; and so may be an answer's
    end, where only one was cut off.
    """
    sides: dict[str, list[Sample]] = {}
    for row in samples:
        if row.lesson is not UNSET and row.lesson.pair is not None:
            sides.setdefault(row.lesson.pair, []).append(row)
    return {pair for pair, rows in sides.items() if _says_the_same(rows)}


def _says_the_same(rows: Sequence[Sample]) -> bool:
    roles = sorted(row.lesson.role for row in rows if row.lesson is not UNSET)
    ends = {(row.text, row.finish_reason == "length") for row in rows}
    return roles == ["chosen", "rejected"] and len(ends) == 1


def lessons(samples: Sequence[Sample]) -> list[Any]:
    """The items without their ids: what is known of the rows before there is a tokeniser."""
    from selfrefine.objectives.base import Item

    found = ((row, Lesson() if row.lesson is UNSET else row.lesson) for row in samples)
    return [
        Item(
            id=row.id,
            prompt_token_ids=(),
            completion_token_ids=(),
            reward=row.reward,
            role=lesson.role,
            pair=lesson.pair,
            group=f"{row.round}/{row.task.id}",  # of another round, replayed here: another policy's group
        )
        for row, lesson in found
    ]


def _old_logprobs(row: Sample) -> tuple[float, ...] | None:
    """The recorded logprobs, where a ratio may be built on them: exact ones, of these very ids."""
    if row.logprobs is None or not row.prompt_token_ids or len(row.logprobs) > len(row.token_ids):
        return None
    return row.logprobs if exact_logprobs(row.engine) else None
