"""What a judge learns from (`select.learn verdicts`): scored answers, and whether each is right.

A row's prompt is the chat of the reward `p-true`, its text "Yes" or "No". It has no ids, so that training
encodes it: the first token is then the very one that `p-true` scores, after the very prompt.

Both words are taught equally often: to each prompt that was answered both ways, and over those that were
answered one way only. A policy that always says No, or that only tells hard prompts from easy ones where all
answers count alike, gains nothing by it.

Source: Kadavath et al. 2022, "Language Models (Mostly) Know What They Know", section 3 (the question);
Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems" (samples labelled by their outcome).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from selfrefine.config import SelectConfig
from selfrefine.records import Lesson, Sample, groups
from selfrefine.rewards.p_true import NO, YES, asked
from selfrefine.steps.rationalise import is_rationalised
from selfrefine.steps.select_candidates import Fate, fit, unique


class Sides(NamedTuple):
    """The answers to one prompt, in their order."""

    right: list[Sample]
    wrong: list[Sample]


def verdicts(samples: Sequence[Sample], config: SelectConfig, fate: Fate) -> list[Sample]:
    """A row for each answer that is taken, in the order of the answers; right from `min_reward` (1) on.

    Unscored, failed and cut-off answers teach nothing, nor do those found with a hint, which the policy does
    not give by itself. Which of several are taken: those of the lowest index, in turn from each prompt.
    """
    mark = 1.0 if config.min_reward is None else config.min_reward
    sides = [_sides(group, mark, config, fate) for group in groups(_judged(samples, config, fate))]
    taken: list[Sample] = []
    one_way = Sides([], [])
    for side in sides:
        n = min(map(len, side))
        taken += [row for rows in side for row in rows[:n]]
    for place in (0, 1):
        one_way[place].extend(_in_turn([side[place] for side in sides if not side[1 - place]]))
    n = min(map(len, one_way))
    taken += [row for rows in one_way for row in rows[:n]]
    fate["unbalanced"] += sum(len(rows) for side in sides for rows in side) - len(taken)
    kept = {row.id for row in taken}
    right = {row.id for side in sides for row in side.right}
    return [verdict_row(row, right=row.id in right) for row in samples if row.id in kept]


def verdict_row(row: Sample, *, right: bool) -> Sample:
    """What is taught of an answer. The reward is 1: a verdict that is right, on a wrong answer too."""
    return Sample(
        id=f"{row.id}.q",
        task=row.task,
        messages=asked(row.task, row.text),
        round=row.round,
        index=row.index,
        parent_id=row.id,
        text=YES if right else NO,
        reward=1.0,
        lesson=Lesson(teaches="verdict"),
    )


def _judged(samples: Sequence[Sample], config: SelectConfig, fate: Fate) -> list[Sample]:
    rows = []
    for row in samples:
        revision = row.parent_id is not None
        if is_rationalised(row):
            fate["hinted"] += 1
        elif config.candidates != "all" and revision != (config.candidates == "revisions"):
            fate["revisions" if revision else "drafts"] += 1
        elif fit(row, fate):
            rows.append(row)
    return rows


def _sides(group: Sequence[Sample], mark: float, config: SelectConfig, fate: Fate) -> Sides:
    rows = unique(group, fate) if config.dedupe else list(group)
    sides = Sides(
        [row for row in rows if (row.reward or 0.0) >= mark],
        [row for row in rows if (row.reward or 0.0) < mark],
    )
    cap = config.max_per_prompt or len(rows)
    fate["over_the_cap"] += sum(max(0, len(side) - cap) for side in sides)
    return Sides(*(side[:cap] for side in sides))


def _in_turn(lists: Sequence[Sequence[Sample]]) -> list[Sample]:
    """The first of each, then the second of each: no prompt fills up what is taken."""
    return [row for turn in zip_longest(*lists) for row in turn if row is not None]
