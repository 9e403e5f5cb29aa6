"""What a critic learns from rewards: under the prompt that asks it for a critique, what they found, word for
word.

At test time the policy then says by itself, without any reward, what is missing. Checking is easier than
writing where a task states what it wants: words to use, an order, a form. `claims` says how well it does so.

Source: Saunders et al. 2022, "Self-critiquing models for assisting human evaluators", for critiques of
checkable flaws; here the flaws are found by a program, not by people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from selfrefine.records import Critique, Lesson, Sample
from selfrefine.rewards.base import WITHHELD

TOLD = "rewards"
"""`Critique.critic` of a critique that no model wrote; `rewards:NAME` of a vote of one reward."""


def details(samples: Sequence[Sample], fate: Counter[Any]) -> list[list[Sample]]:
    """A row per critique that rewards told, each in a list of its own, since each has its own prompt.

    What was right is learnt, too, as a bare `Verdict: ok`: a critic that never saw one finds fault with all.
    What was withheld is not: it would learn to say that of every draft.
    """
    made = []
    for row in samples:
        told = [
            one
            for one in row.critiques
            if one.critic == TOLD and one.verdict and one.messages and WITHHELD not in one.text
        ]
        fate["not_told"] += not told
        made += [[_lesson(row, one)] for one in told]
    return made


def _lesson(row: Sample, told: Critique) -> Sample:
    text = "\n".join(filter(None, (told.text, f"Verdict: {told.verdict}")))
    return Sample(
        id=f"{row.id}.c{told.pass_index}",
        task=row.task,
        messages=told.messages,
        round=row.round,
        index=row.index,
        parent_id=row.id,
        text=text,
        engine=row.engine,
        reward=1.0,
        lesson=Lesson(teaches="critique"),
    )


def is_told(one: Critique) -> bool:
    """Whether no model wrote it."""
    return one.critic.partition(":")[0] == TOLD


def claims(text: str) -> frozenset[str]:
    """What a critique says is wrong: "missing concepts: dog, run" is two claims, another line is one.

    Labels, bullets, case and the lines of score and verdict aside.
    """
    return frozenset(_items(text.splitlines()))


def _items(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        line = line.strip().removeprefix("- ").casefold()
        label, colon, rest = line.partition(":")
        if label in ("verdict", "score") or not line:
            continue
        for item in rest.split(",") if colon else [line]:
            if item.strip(" ."):
                yield item.strip(" .")
