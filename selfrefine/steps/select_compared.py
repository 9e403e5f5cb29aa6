"""Selections that compare: pairs (DPO, IPO), labels (KTO) and whole groups (REINFORCE, RLOO, GRPO).

Each takes the candidates of one task and returns the chosen rows with their lessons; what falls out is
counted in `fate`, row by row.

Source: Rafailov et al. 2023, "Direct Preference Optimization"; Yuan et al. 2024, "Self-Rewarding Language
Models" (best against worst); Chen et al. 2024, "Self-Play Fine-Tuning" (reference against own answer);
Ethayarajh et al. 2024, "KTO"; Yu et al. 2025, "DAPO" (groups without spread are left out).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from selfrefine.config import SelectConfig
from selfrefine.records import Lesson, Sample
from selfrefine.steps.select_candidates import Fate, fit, ranked, unique

_ROUNDING = 1e-9
"""0.3 - 0.1 is a little less than 0.2: a margin is not missed by the last bit."""


def pairs(group: Sequence[Sample], config: SelectConfig, fate: Fate) -> list[Sample]:
    """Best against worst, second best against second worst …: `pairs_per_prompt` at most.

    A pair's rewards differ, by `margin` at least; its chosen side reaches `min_reward` where there is one.
    """
    if config.chosen == "references":
        return _against_reference(group, config, fate)
    rows = [row for row in group if fit(row, fate)]
    made: list[Sample] = []
    spread = False
    for same in _by_prompt(rows):
        order = ranked(same)
        order = unique(order, fate) if config.dedupe else order
        n = 0
        for best, worst in zip(order[: len(order) // 2], reversed(order), strict=False):
            gap = (best.reward or 0.0) - (worst.reward or 0.0)
            spread = spread or gap > 0
            low = config.min_reward is not None and (best.reward or 0.0) < config.min_reward
            far = gap > 0 and gap + _ROUNDING >= config.margin
            if n == config.pairs_per_prompt or not far or low:
                break
            if best.text.strip() == worst.text.strip():
                continue
            made += _pair(best, worst, f"{best.task.id}.r{best.round}.p{len(made) // 2}")
            n += 1
        fate["unpaired"] += len(order) - 2 * n
    fate["prompts_without_spread"] += bool(rows) and not spread
    return made


def _against_reference(group: Sequence[Sample], config: SelectConfig, fate: Fate) -> list[Sample]:
    """The reference is chosen, the policy's own answer rejected, whatever its reward.

    The reference row has no ids: it is encoded when it is trained on.
    """
    rows = [row for row in group if fit(row, fate)]
    rows = unique(rows, fate) if config.dedupe else rows
    references = [text for text in group[0].task.references if text.strip()]
    if not references:
        fate["no_reference"] += len(rows)
        return []
    other = [row for row in rows if row.text.strip() not in {text.strip() for text in references}]
    fate["equal_to_reference"] += len(rows) - len(other)
    made: list[Sample] = []
    for i, row in enumerate(other[: config.pairs_per_prompt]):
        chosen = replace(
            row,
            id=f"{row.task.id}.r{row.round}.ref{i}",
            text=references[0],
            token_ids=(),
            logprobs=None,
            finish_reason="stop",
            parent_id=None,
            policy="",
            seed=0,
            critiques=(),
            rewards=(),
            reward=None,
        )
        made += _pair(chosen, row, f"{row.task.id}.r{row.round}.p{i}")
    fate["unpaired"] += max(0, len(other) - config.pairs_per_prompt)
    return made


def _pair(chosen: Sample, rejected: Sample, name: str) -> list[Sample]:
    return [
        replace(chosen, lesson=Lesson(role="chosen", pair=name)),
        replace(rejected, lesson=Lesson(role="rejected", pair=name)),
    ]


def _by_prompt(rows: Sequence[Sample]) -> list[list[Sample]]:
    """The two sides of a pair answer the same prompt, to the token."""
    same: dict[tuple[int, ...], list[Sample]] = {}
    for row in rows:
        same.setdefault(row.prompt_token_ids, []).append(row)
    return list(same.values())


def labels(group: Sequence[Sample], config: SelectConfig, fate: Fate) -> list[Sample]:
    """Each answer by itself: good from `min_reward` (0.5) on, else bad; best and worst up to the cap."""
    mark = 0.5 if config.min_reward is None else config.min_reward
    order = ranked([row for row in group if fit(row, fate)])
    order = unique(order, fate) if config.dedupe else order
    good = [replace(row, lesson=Lesson(role="chosen")) for row in order if (row.reward or 0.0) >= mark]
    bad = [replace(row, lesson=Lesson(role="rejected")) for row in reversed(order[len(good) :])]
    cap = config.max_per_prompt or len(order)
    fate["over_the_cap"] += max(0, len(good) - cap) + max(0, len(bad) - cap)
    return good[:cap] + bad[:cap]


def whole_groups(group: Sequence[Sample], config: SelectConfig, fate: Fate) -> list[Sample]:
    """All scored answers of a prompt whose rewards differ, equal and cut-off ones included.

    They are the policy's own draws under this prompt, and the baseline is their mean; a revision was drawn
    under another prompt and is left out. Without spread every advantage is 0.
    """
    drafts = [row for row in group if row.parent_id is None]
    fate["revisions"] += len(group) - len(drafts)
    rows = [row for row in drafts if fit(row, fate, whole=False)]
    if len({row.reward for row in rows}) > 1:
        return [replace(row, lesson=Lesson()) for row in rows]
    fate["without_spread"] += len(rows)
    fate["prompts_without_spread"] += bool(rows)
    return []
