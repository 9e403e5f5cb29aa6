"""Right answers, broken: drafts whose correction is known, and near.

A policy's own corrections of its drafts are few, and mostly other answers. From a right answer a few words
are taken out, or two change places, or a number is another, at random, until the rewards find fault with it;
what they find is the critique, and the right answer is what the turn learns. Every lesson then says the same:
keep the draft, mend what is named.

Source: Yasunaga & Liang 2021, "Break-It-Fix-It: Unsupervised Learning for Program Repair", arXiv:2106.06600;
there the breaker is learnt, here it is a random cut that a program checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    import numpy as np

from selfrefine.prompts import Template
from selfrefine.records import Sample, unless_prompt
from selfrefine.rewards.scripts import unspaced
from selfrefine.seeds import generator, row_seed
from selfrefine.steps.critics import Asked, Critic
from selfrefine.steps.turns import of_chat, revise_chat

BROKEN = 2
"""Broken copies of one right answer, at most."""
_TRIES = 16
_LONGEST = 3
"""Words that are taken out at once, at most; of a text without spaces, characters."""
_WORD, _CHARACTER = re.compile(r"\S+\s*"), re.compile(r"\S\s*")
_BARE = re.compile(r"-?\w+(?:[.,'-]\w+)*")
"""A word or number without the marks around it."""
_NUMBER = re.compile(r"(?<![\w.,])-?\d{1,15}(?![\w.,]*\d)")
"""A whole number, not a part of a longer one or of a word."""
_BEGIN, _END = re.compile(r"^[^\w-]*"), re.compile(r"\W*$")


@dataclass(frozen=True)
class Breaker:
    """`score`: the rewards that are trained on; `criticise`: what those, or others, tell of a text. An answer
    is right from `mark` on."""

    score: Callable[[list[Sample]], list[Sample]]
    criticise: Critic
    template: Template
    seed: int
    mark: float = 1.0

    def __call__(self, answers: Sequence[tuple[Sample, Sample]]) -> list[tuple[Sample, Sample]]:
        """(broken draft, turn that mends it) of the right ones among `answers`, each once.

        `answers`: a text that answers a task, and the row whose chat asked for it: for a revision, its draft.
        """
        right: dict[tuple[str, str], tuple[Sample, Sample]] = {}
        for row, asked in answers:
            if row.reward is not None and row.reward >= self.mark:
                right.setdefault((row.task.id, row.text.strip()), (row, asked))
        tried: dict[str, list[Sample]] = {}
        for made in self.score([made for row, asked in right.values() for made in self._broken(row, asked)]):
            tried.setdefault(made.parent_id or "", []).append(made)
        turns = []
        for row, asked in right.values():
            worse = [made for made in tried.get(row.id, ()) if _is_worse(made, row)]
            turns += [self._turn(row, asked, made) for made in worse[:BROKEN]]
        return [turn for turn in turns if turn is not None]

    def _broken(self, row: Sample, asked: Sample) -> list[Sample]:
        draw = generator(row_seed(self.seed, "broken", 0, row.round, row.task.id, row.index))
        text = row.text.strip()
        breaks = [_BREAKS[int(draw.integers(len(_BREAKS)))](text, draw) for _ in range(_TRIES)]
        texts = dict.fromkeys(made for made in breaks if made and made != text)
        return [_draft(row, asked, made, f"{row.id}.b{k}") for k, made in enumerate(texts)]

    def _turn(self, row: Sample, asked: Sample, made: Sample) -> tuple[Sample, Sample] | None:
        found = self.criticise([Asked(row=made, chat=(), shown={}, seed=0, pass_index=0)])[0]
        if found.verdict != "revise":
            return None
        messages = revise_chat(self.template, of_chat(asked), made.text, found.text)
        turn = replace(
            row,
            id=f"{made.id}.v1",
            messages=unless_prompt(messages, row.task),
            prompt_token_ids=(),
            logprobs=None,
            critiques=(),
            parent_id=made.id,
        )
        return made, turn


def _draft(row: Sample, asked: Sample, text: str, name: str) -> Sample:
    return replace(
        asked,
        id=name,
        parent_id=row.id,
        text=text,
        finish_reason="stop",
        token_ids=(),
        logprobs=None,
        critiques=(),
        rewards=(),
        reward=None,
    )


def _is_worse(made: Sample, row: Sample) -> bool:
    return made.error is None and made.reward is not None and made.reward < (row.reward or 0.0)


def _cut(text: str, draw: np.random.Generator) -> str:
    """The text without one to three words in a row, and "" if that would be half of it. How it begins and
    ends (a capital, a bracket, a final stop) stays: real drafts have that, too."""
    pieces = (_CHARACTER if unspaced(text) else _WORD).findall(text)
    longest = min(_LONGEST, (len(pieces) - 1) // 2)
    if longest < 1:
        return ""
    n = int(draw.integers(1, longest + 1))
    at = int(draw.integers(0, len(pieces) - n + 1))
    left = "".join([*pieces[:at], *pieces[at + n :]]).strip()
    begin, end = _BEGIN.findall(text)[0], _END.findall(text)[0]
    core = left[len(_BEGIN.findall(left)[0]) : len(left) - len(_END.findall(left)[0])]
    if text[len(begin) :][:1].isupper():
        core = core[:1].upper() + core[1:]
    return begin + core + end if core else ""


def _swapped(text: str, draw: np.random.Generator) -> str:
    """The text with two of its words in each other's place, and "" where it has not two."""
    words = list(_BARE.finditer(text))
    if len(words) < 2:
        return ""
    i, j = sorted(int(place) for place in draw.choice(len(words), 2, replace=False))
    first, second = words[i], words[j]
    between = text[first.end() : second.start()]
    return text[: first.start()] + second[0] + between + first[0] + text[second.end() :]


def _misread(text: str, draw: np.random.Generator) -> str:
    """The text with one whole number a little off, and "" where it has none."""
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return ""
    one = numbers[int(draw.integers(len(numbers)))]
    off = int(draw.choice((-10, -2, -1, 1, 2, 10)))
    return f"{text[: one.start()]}{int(one[0]) + off}{text[one.end() :]}"


_BREAKS = (_cut, _swapped, _misread)
