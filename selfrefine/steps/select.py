"""The step `select`: which scored answers are worth learning from. Every row that falls out is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from selfrefine.config import SelectConfig
from selfrefine.records import Sample, groups
from selfrefine.seeds import derive, generator


class Selection(Struct, frozen=True, kw_only=True):
    """The chosen rows in input order, and what became of the others."""

    rows: list[Sample]
    counts: dict[str, int]


def select(samples: Sequence[Sample], config: SelectConfig) -> Selection:
    """best-of-n takes what lies above its group's minimum (a group without spread teaches nothing), or, with
    min_reward, what reaches it; then the best of each prompt, ties by index. threshold takes min_reward and
    more (1 where none is given); all takes every scored, finished answer.

    Unscored rows, truncated ones (an answer cut off would teach never to stop) and errors always fall out.
    """
    fate: Counter[str] = Counter(samples=len(samples))
    chosen: set[str] = set()
    for group in groups(samples):
        fit = [row for row in group if _fit(row, fate)]
        passing = _passing(fit, config)
        fate["below"] += len(fit) - len(passing)
        if fit and not passing:
            fate["prompts_without_spread"] += _flat(fit)
        ranked = sorted(passing, key=lambda row: (-(row.reward or 0.0), row.index, row.id))
        unique = _unique(ranked) if config.dedupe else ranked
        fate["duplicates"] += len(ranked) - len(unique)
        cap = config.max_per_prompt or (1 if config.strategy == "best-of-n" else len(unique))
        fate["over_the_cap"] += max(0, len(unique) - cap)
        chosen |= {row.id for row in unique[:cap]}
        fate["prompts_selected"] += bool(unique)
    rows = [_as_answer(row, samples) for row in samples if row.id in chosen]
    return Selection(rows=rows, counts={**fate, "selected": len(rows)})


def _fit(row: Sample, fate: Counter[str]) -> bool:
    why = ""
    if row.error is not None or row.finish_reason == "error":
        why = "errors"
    elif row.finish_reason == "length":
        why = "truncated"
    elif row.reward is None:
        why = "unscored"
    if why:
        fate[why] += 1
    return not why


def _passing(fit: list[Sample], config: SelectConfig) -> list[Sample]:
    rewards = [row.reward or 0.0 for row in fit]
    if config.strategy == "all":
        floor = config.min_reward or 0.0
    elif config.strategy == "threshold":
        floor = 1.0 if config.min_reward is None else config.min_reward
    elif config.min_reward is not None:
        floor = config.min_reward
    else:
        lowest = min(rewards, default=0.0)
        return [row for row, reward in zip(fit, rewards, strict=True) if reward > lowest]
    return [row for row, reward in zip(fit, rewards, strict=True) if reward >= floor]


def _flat(fit: list[Sample]) -> bool:
    return len({row.reward for row in fit}) == 1


def _unique(ranked: list[Sample]) -> list[Sample]:
    """The first row of each distinct text, white space at the ends aside."""
    first: dict[str, Sample] = {}
    for row in ranked:
        first.setdefault(row.text.strip(), row)
    return list(first.values())


def _as_answer(row: Sample, samples: Sequence[Sample]) -> Sample:
    """A revision is learnt as the answer to its draft's prompt: the policy should get there at once.

    Its logprobs belong to the prompt it was sampled under, so they go. Where the draft is not among the rows
    (somebody filtered it out) the revision turn itself is what can be learnt.
    """
    if row.parent_id is None:
        return row
    draft = next((s for s in samples if s.id == row.parent_id), None)
    if draft is None:
        return row
    return msgspec.structs.replace(
        row, messages=draft.messages, prompt_token_ids=draft.prompt_token_ids, logprobs=None
    )


def replay(current: Sequence[Sample], earlier: Iterable[Sample], share: float, seed: int) -> list[Sample]:
    """Rows of earlier rounds to learn again, so that they make up at most `share` of the training tokens.

    A seeded draw without replacement; the cap keeps a round's cost constant however many rounds lie behind.
    """
    budget = sum(map(_tokens, current)) * share / (1.0 - share)
    pool = list(earlier)
    taken = []
    for i in generator(derive(seed, "replay")).permutation(len(pool)).tolist():
        if (cost := _tokens(pool[i])) <= budget:
            budget -= cost
            taken.append(i)
    return [pool[i] for i in sorted(taken)]


def _tokens(row: Sample) -> int:
    return len(row.prompt_token_ids) + len(row.token_ids)


def why_nothing(counts: dict[str, int]) -> str:
    """One sentence on why a selection is empty."""
    n = counts["samples"]
    if not n:
        return "there are no samples"
    for key, sentence in (
        ("truncated", "every answer was cut off at max_new_tokens: raise generate.max_new_tokens"),
        ("unscored", "no answer could be scored: look at the rewards' errors"),
        ("errors", "no prompt could be answered"),
    ):
        if counts.get(key, 0) == n:
            return sentence
    if (
        counts.get("prompts_without_spread", 0)
        and counts["prompts_without_spread"] >= counts.get("below", 0) / n
    ):
        return (
            f"no answer of {n} lies above its group's minimum or reaches select.min_reward "
            f"({counts['prompts_without_spread']} prompts have answers of one reward only): "
            "try easier tasks, more samples (generate.n) or a graded reward"
        )
    return f"no answer of {n} reaches select.min_reward: lower it, or try easier tasks or more samples"
