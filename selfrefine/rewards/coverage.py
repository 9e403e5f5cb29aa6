"""coverage: the share of the task's concepts that the answer uses, word forms included.

Concepts come from `meta.concepts` (a list; part of the prompt, so the detail names the missing ones), else
from the references, each a list separated by commas or white space; those the detail only counts, unless
references may be revealed. A concept of several words must stand in one piece.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.records import Reward, Sample, Task
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each, unscored
from selfrefine.rewards.words import forms, tokens

SIGNATURE = "forms:en-rules|v:1"


class CoverageSettings(Struct, frozen=True, forbid_unknown_fields=True):
    word_forms: Annotated[
        bool,
        Meta(description="Off: only the concept's own spelling counts (for other languages than English)."),
    ] = True


def make(own: CoverageSettings, options: RewardOptions) -> Scorer:
    signature = SIGNATURE if own.word_forms else "forms:none|v:1"

    def score(sample: Sample) -> Reward:
        try:
            concepts, public = _concepts(sample.task)
        except ValueError as error:
            return unscored("coverage", str(error), signature)
        words = tokens(sample.text)
        missing = [c for c in concepts if not _used(tokens(c), words, own.word_forms)]
        if not missing:
            detail = None
        elif public or options.reveal_references:
            detail = f"missing concepts: {', '.join(missing)}"
        else:
            detail = f"{len(missing)} of {len(concepts)} concepts missing"
        return checked("coverage", 1 - len(missing) / len(concepts), detail, signature)

    return Scorer(name="coverage", score=each(score))


def _concepts(task: Task) -> tuple[list[str], bool]:
    """The task's distinct concepts and whether they may be named. Raises: ValueError with the reason."""
    public = "concepts" in task.meta
    if public:
        concepts = task.meta["concepts"]
        if not isinstance(concepts, list) or not all(isinstance(concept, str) for concept in concepts):
            raise ValueError("meta.concepts is not a list of words")
    else:
        concepts = [c for r in task.references for c in (r.split(",") if "," in r else r.split())]
    concepts = list(dict.fromkeys(concept.strip() for concept in concepts if tokens(concept)))
    if not concepts:
        raise ValueError("meta.concepts is empty" if public else "no meta.concepts and no references")
    return concepts, public


def _used(concept: list[str], words: list[str], word_forms: bool) -> bool:
    accepted = [forms(word) if word_forms else {word} for word in concept]
    n = len(concept)
    return any(
        all(word in good for word, good in zip(words[i : i + n], accepted, strict=True))
        for i in range(len(words) - n + 1)
    )


REWARD = RewardKind(
    name="coverage",
    about="the share of `meta.concepts` that is used, word forms included",
    make=make,
    settings=CoverageSettings,
)
