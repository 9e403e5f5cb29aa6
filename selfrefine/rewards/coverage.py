"""coverage: the share of the task's concepts that the answer uses, word forms included.

Concepts are `meta.concepts`, a list. They are part of the prompt, so the detail names the missing ones. A
concept of several words must stand in one piece. One in a script without spaces between words (Chinese,
Japanese, Thai) is looked for anywhere in the answer.

An answer without all of them went astray where it began to use none (`Reward.keep`): after the first use of
the last concept that it did use.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.records import Reward, Sample, Task
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each, unscored
from selfrefine.rewards.scripts import unspaced
from selfrefine.rewards.words import forms, placed, tokens

SIGNATURE = "forms:en-rules|v:2"


class CoverageSettings(Struct, frozen=True, forbid_unknown_fields=True):
    word_forms: Annotated[
        bool,
        Meta(description="Accept other English forms of a word. Off: only its exact spelling counts."),
    ] = True


def make(own: CoverageSettings, options: RewardOptions) -> Scorer:
    signature = SIGNATURE if own.word_forms else "forms:none|v:2"

    def score(sample: Sample) -> Reward:
        try:
            concepts = _concepts(sample.task)
        except ValueError as error:
            return unscored("coverage", str(error), signature)
        words = placed(sample.text)
        ends = {concept: _end(concept, words, sample.text, own.word_forms) for concept in concepts}
        missing = [concept for concept, end in ends.items() if end is None]
        if not missing:
            return checked("coverage", 1.0, signature=signature)
        detail = f"missing concepts: {', '.join(missing)}"
        keep = max((end for end in ends.values() if end is not None), default=0)
        return checked("coverage", 1 - len(missing) / len(concepts), detail, signature, keep=keep)

    return Scorer(name="coverage", score=each(score))


def _concepts(task: Task) -> list[str]:
    """The task's distinct concepts. Raises: ValueError with the reason."""
    if "concepts" not in task.meta:
        raise ValueError("the task has no meta.concepts; `selfrefine tasks concepts:4` makes tasks with them")
    given = task.meta["concepts"]
    if not isinstance(given, list) or not all(isinstance(concept, str) for concept in given):
        raise ValueError("meta.concepts is not a list of words")
    concepts = [unicodedata.normalize("NFC", concept.strip()) for concept in given if tokens(concept)]
    if not concepts:
        raise ValueError("meta.concepts is empty")
    return list(dict.fromkeys(concepts))


def _end(concept: str, words: list[tuple[str, int]], text: str, word_forms: bool) -> int | None:
    """Where its first use ends; None where there is none."""
    if unspaced(concept):
        composed = unicodedata.normalize("NFC", text)
        at = composed.find(concept)
        # In a text of decomposed characters the place is another one: nothing is kept for it.
        return None if at < 0 else at + len(concept) if composed == text else 0
    accepted = [forms(word) if word_forms else {word} for word in tokens(concept)]
    n = len(accepted)
    for i in range(len(words) - n + 1):
        if all(word in good for (word, _), good in zip(words[i : i + n], accepted, strict=True)):
            return words[i + n - 1][1]
    return None


REWARD = RewardKind(
    name="coverage",
    about="share of `meta.concepts` that the answer uses, in any word form",
    make=make,
    settings=CoverageSettings,
)
