"""What a row may teach (`select.learn`): an answer, the turn that revised one, the critique that led to it.

The candidates made here are Samples like any other: what is learnt is always `text` after `messages`. A
strategy then chooses among them. Rows that teach nothing of the wanted kind are counted in `fate`. What a
judge of answers learns is chosen in `select_verdicts.py`.

Source: Madaan et al. 2023, "Self-Refine", for the turns; Welleck et al. 2023, "Generating Sequences by
Learning to Self-Correct", for keeping the corrections that raised the value.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec.structs import replace

from selfrefine.config import SelectConfig
from selfrefine.records import Critique, Lesson, Sample, groups
from selfrefine.steps.rationalise import is_rationalised
from selfrefine.steps.select_broken import Breaker
from selfrefine.steps.select_details import TOLD, details
from selfrefine.steps.similarity import similarity

Reason = Literal[
    "samples",
    "out_of_band",
    "prompts_out_of_band",
    "drafts",
    "revisions",
    "not_criticised",
    "critiques_failed",
    "critiques_ok",
    "not_revised",
    "no_draft",
    "no_critique",
    "not_told",
    "not_better",
    "corrected",
    "broken",
    "too_far",
    "references_seen",
    "by_several",
    "critiques_truncated",
    "errors",
    "truncated",
    "unscored",
    "duplicates",
    "below",
    "over_the_cap",
    "no_reference",
    "equal_to_reference",
    "unpaired",
    "without_spread",
    "prompts_without_spread",
    "hinted",
    "unbalanced",
    "prompts_selected",
]
"""What becomes of a row; prompts_… count prompts. `stages.select.SelectCounts` has a field for each."""
Fate = Counter[Reason]
_REVISION = re.compile(r"\.v(\d+)$")


def candidates(
    samples: Sequence[Sample], config: SelectConfig, fate: Fate, breaker: Breaker | None = None
) -> list[list[Sample]]:
    """The rows a strategy chooses from: those of one task that teach the same kind of thing, in lists."""
    kept = in_band(samples, config, fate)
    if config.learn == "answers":
        return groups(_answers(kept, config, fate))
    if config.learn == "details":
        return details(kept, fate)
    risen, others = _risen(kept, fate)
    made = []
    if config.learn in ("revisions", "both"):
        turns = [after for _, after in risen]
        if config.corrections == "samples":
            turns += _corrected(kept, others, fate)
        elif config.corrections in ("near", "broken"):
            turns = _near(kept, [*risen, *others], config, fate)
            if breaker:
                turns += _broken(kept, breaker, config, fate)
        made += groups([replace(turn, lesson=Lesson(teaches="revision")) for turn in turns])
    told_by_rewards = any(one.critic == TOLD for row in kept for one in row.critiques)
    if config.learn == "both" and told_by_rewards:
        made += details(kept, fate)
    elif config.learn in ("critiques", "both"):
        told = (_critique_row(before, after, fate) for before, after in risen)
        made += groups([row for row in told if row is not None])
    return made


def fit(row: Sample, fate: Fate, *, whole: bool = True) -> bool:
    """Can this row be learnt from? With `whole` one that was cut off cannot: it teaches never to stop."""
    why: Literal["", "errors", "truncated", "unscored"] = ""
    if row.error is not None or row.finish_reason == "error":
        why = "errors"
    elif whole and row.finish_reason == "length":
        why = "truncated"
    elif row.reward is None:
        why = "unscored"
    if why:
        fate[why] += 1
    return not why


def ranked(rows: Iterable[Sample]) -> list[Sample]:
    """Best first; of equals the lower index."""
    return sorted(rows, key=lambda row: (-(row.reward or 0.0), row.index, row.id))


def unique(rows: Sequence[Sample], fate: Fate) -> list[Sample]:
    """The first row of each distinct text under one prompt, white space at the ends aside.

    A turn's prompt shows its draft: one correction of two drafts is two lessons.
    """
    first: dict[tuple[object, str], Sample] = {}
    for row in rows:
        first.setdefault((row.context, row.text.strip()), row)
    fate["duplicates"] += len(rows) - len(first)
    return list(first.values())


def in_band(samples: Sequence[Sample], config: SelectConfig, fate: Fate) -> list[Sample]:
    """Rows of the prompts whose mean reward lies within `select.band`: neither mastered nor out of reach.

    The mean is over the drafts, since it says how hard a prompt is for the policy; answers found with a hint
    do not. A prompt with no scored draft has none, and its rows stay to be counted as unscored.
    """
    if config.band is None:
        return list(samples)
    low, high = config.band
    outside = set()
    for group in groups(samples):
        drafts = [row for row in group if row.parent_id is None and not is_rationalised(row)]
        rewards = [row.reward for row in drafts if row.reward is not None]
        if rewards and not low <= sum(rewards) / len(rewards) <= high:
            outside.add(group[0].task.id)
            fate["out_of_band"] += len(group)
            fate["prompts_out_of_band"] += 1
    return [row for row in samples if row.task.id not in outside]


def _answers(samples: Sequence[Sample], config: SelectConfig, fate: Fate) -> list[Sample]:
    by_id = {row.id: row for row in samples}
    if config.candidates == "revisions":
        _unrevised(samples, fate)
    rows = []
    for row in samples:
        revision = row.parent_id is not None
        if config.candidates == "all" or revision == (config.candidates == "revisions"):
            rows.append(replace(_as_answer(row, by_id.get(row.parent_id or "")), lesson=Lesson()))
        else:
            fate["revisions" if revision else "drafts"] += 1
    return rows


def _as_answer(row: Sample, draft: Sample | None) -> Sample:
    """A revision is learnt as the answer to its draft's prompt: the policy should get there at once.

    Its logprobs belong to the prompt it was sampled under, so they go. Where the draft is not among the rows
    (somebody filtered it out) the revision turn itself is what can be learnt.
    """
    if draft is None:
        return row
    return replace(row, messages=draft.messages, prompt_token_ids=draft.prompt_token_ids, logprobs=None)


def _unrevised(samples: Sequence[Sample], fate: Fate) -> None:
    """Counts the drafts that have no revision, by why."""
    revised = {row.parent_id for row in samples}
    for row in samples:
        if row.parent_id is not None or row.id in revised:
            continue
        if row.error is not None or row.finish_reason == "error":
            fate["errors"] += 1
        elif not row.critiques:
            fate["not_criticised"] += 1
        elif row.critiques[-1].finish_reason == "error":
            fate["critiques_failed"] += 1
        else:
            fate["critiques_ok" if row.critiques[-1].verdict == "ok" else "not_revised"] += 1


Turn = tuple[Sample, Sample]
"""(the text that was criticised, its revision)."""


def _risen(samples: Sequence[Sample], fate: Fate) -> tuple[list[Turn], list[Turn]]:
    """The turns whose reward rose from the one text to the other, and those whose did not."""
    by_id = {row.id: row for row in samples}
    _unrevised(samples, fate)
    found, others = [], []
    for row in samples:
        if row.parent_id is None:
            fate["drafts"] += 1
            continue
        before = by_id.get(_revised_id(row))
        if not fit(row, fate):
            others += [(before, row)] if before is not None else []
        elif before is None:
            fate["no_draft"] += 1
        elif before.reward is None:
            fate["unscored"] += 1
        elif (row.reward or 0.0) <= before.reward:
            fate["not_better"] += 1
            others.append((before, row))
        else:
            found.append((before, row))
    return found, others


def _corrected(samples: Sequence[Sample], turns: Sequence[Turn], fate: Fate) -> list[Sample]:
    """The turns with the best draft of their task in place of their own revision, where it is better.

    Welleck et al. 2023: corrections are paired from the samples of a prompt by their value. A
    model that cannot correct yet makes none to learn from. Logprobs belong to another prompt and go.
    """
    best: dict[str, Sample] = {}
    drafts = [row for row in samples if row.parent_id is None and fit(row, Counter())]
    for row in ranked(drafts):
        best.setdefault(row.task.id, row)
    made = []
    for before, turn in turns:
        better = best.get(before.task.id)
        if turn.error is not None or before.reward is None or better is None:
            continue
        if (better.reward or 0.0) <= before.reward:
            continue
        fate["corrected"] += 1
        made.append(_taught(turn, better))
    return made


def _taught(turn: Sample, better: Sample) -> Sample:
    """The turn with another answer in place of its own."""
    return replace(
        turn,
        text=better.text,
        token_ids=better.token_ids,
        finish_reason=better.finish_reason,
        reward=better.reward,
        rewards=better.rewards,
        logprobs=None,
    )


def _near(samples: Sequence[Sample], turns: Sequence[Turn], config: SelectConfig, fate: Fate) -> list[Sample]:
    """Each turn with the nearest of all better answers to its task: it learns to change a text, and not to
    answer again.

    A correction drawn anywhere from the pool shares few words with its draft, and a policy taught by such
    ignores both draft and critique (measured on `demo-text`: CRITIQUE.md).
    """
    pool: dict[str, list[Sample]] = {}
    for row in samples:
        if fit(row, Counter()):
            pool.setdefault(row.task.id, []).append(row)
    made = []
    for before, turn in turns:
        if turn.error is not None or before.reward is None:
            continue
        floor = max(before.reward, config.min_reward or 0.0)
        better = [
            row
            for row in pool.get(before.task.id, ())
            if (row.reward or 0.0) > before.reward and (row.reward or 0.0) >= floor
        ]
        alike = {row.id: similarity(before.text, row.text) for row in better}
        near = [row for row in better if alike[row.id] >= config.min_similarity]
        fate["too_far"] += bool(better) and not near
        if near:
            nearest = max(near, key=lambda row: (alike[row.id], row.reward or 0.0, row.id == turn.id))
            fate["corrected"] += nearest.id != turn.id
            made.append(turn if nearest.id == turn.id else _taught(turn, nearest))
    return made


def _broken(samples: Sequence[Sample], breaker: Breaker, config: SelectConfig, fate: Fate) -> list[Sample]:
    """The right answers as corrections of broken copies of themselves."""
    by_id = {row.id: row for row in samples}
    good = [row for row in samples if fit(row, Counter())]
    # A revision whose draft is not here: its own chat asks for a revision, and the task's is not known.
    asked = [(row, by_id.get(row.parent_id) if row.parent_id else row) for row in good]
    mended = breaker([(row, own) for row, own in asked if own is not None])
    made = [turn for draft, turn in mended if similarity(draft.text, turn.text) >= config.min_similarity]
    fate["too_far"] += len(mended) - len(made)
    fate["broken"] += len(made)
    return made


def _revised_id(row: Sample) -> str:
    """Pass 1 revises the draft, pass 2 the revision of pass 1."""
    match = _REVISION.search(row.id)
    number = int(match[1]) if match else 1
    return f"{row.parent_id}.v{number - 1}" if number > 1 else row.parent_id or ""


def _critique_row(before: Sample, after: Sample, fate: Fate) -> Sample | None:
    """The critique of `before` as a row of its own, worth what its revision is worth.

    A critic that saw the references needs them, and would be trained to expect them: not learnt. Another
    model's critique keeps its text only: its ids are of another vocabulary, and it is encoded anew.
    """
    if not before.critiques:
        fate["no_critique"] += 1
        return None
    told = before.critiques[-1]
    if told.critic.endswith("+references"):
        fate["references_seen"] += 1
        return None
    if told.votes:  # which of them made the revision better nobody knows
        fate["by_several"] += 1
        return None
    if told.finish_reason != "stop":
        fate["critiques_truncated"] += 1
        return None
    own = _own(told, before)
    return Sample(
        id=f"{before.id}.c{told.pass_index}",
        task=before.task,
        messages=told.messages,
        prompt_token_ids=told.prompt_token_ids if own else (),
        round=before.round,
        index=before.index,
        parent_id=before.id,
        text=told.text,
        token_ids=told.token_ids if own else (),
        logprobs=told.logprobs if own else None,
        policy=before.policy if own else "",
        engine=before.engine,
        reward=after.reward,
        lesson=Lesson(teaches="critique"),
    )


def _own(told: Critique, row: Sample) -> bool:
    """Whether the policy was its own critic: `critic` ends in the beginning of the critic's policy hash."""
    _, _, policy = told.critic.rpartition("policy:")
    return bool(policy) and row.policy.startswith(policy)
