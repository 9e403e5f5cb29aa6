"""Which items an objective can learn from. What falls out is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from selfrefine.config import ObjectiveConfig
from selfrefine.errors import DataError
from selfrefine.objectives import GROUPED, LABELLED, PAIRED
from selfrefine.objectives.advantages import groups, has_spread, weights
from selfrefine.objectives.base import Item


def fit(items: Sequence[Item], settings: ObjectiveConfig) -> tuple[list[Item], dict[str, int]]:
    """The items to train on, in order, and how many fell out, by reason.

    Raises: DataError where the rows are of another kind than the objective's altogether.
    """
    name = settings.name
    if name in PAIRED:
        return _paired(items, name)
    if name in LABELLED:
        kept = [item for item in items if item.role != "learn"]
        if items and not kept:
            raise DataError(f"{name} learns from rows marked chosen or rejected, and none is: select labels")
        return kept, _counted(unlabelled=len(items) - len(kept))
    if name in GROUPED:
        return _grouped(items)
    # What a pair rejects is no example to follow.
    kept = [item for item in items if item.role != "rejected"]
    counts = _counted(rejected=len(items) - len(kept))
    if name == "weighted-sft":
        scored = [item for item in kept if item.reward is not None]
        weighed = weights(scored, settings)
        counts |= _counted(unscored=len(kept) - len(scored), weightless=len(scored) - len(weighed))
        kept = weighed
    return kept, counts


def _paired(items: Sequence[Item], name: str) -> tuple[list[Item], dict[str, int]]:
    sides: dict[str, Counter[str]] = {}
    for item in items:
        if item.pair is not None:
            sides.setdefault(item.pair, Counter())[item.role] += 1
    if items and not sides:
        raise DataError(f"{name} learns from pairs, and no row belongs to one: select pairs")
    whole = {pair for pair, roles in sides.items() if roles == Counter(chosen=1, rejected=1)}
    kept = [item for item in items if item.pair in whole]
    prompts = {item.pair: item.prompt_token_ids for item in kept}
    for item in kept:
        if prompts[item.pair] != item.prompt_token_ids:
            raise DataError(f"pair {item.pair}: its two rows do not answer the same prompt (row {item.id})")
    return kept, _counted(unpaired=len(items) - len(kept))


def _grouped(items: Sequence[Item]) -> tuple[list[Item], dict[str, int]]:
    scored = [item for item in items if item.reward is not None]
    flat = [m for m in groups(scored) if not has_spread([scored[i].reward or 0.0 for i in m])]
    dropped = {i for members in flat for i in members}
    kept = [item for i, item in enumerate(scored) if i not in dropped]
    return kept, _counted(unscored=len(items) - len(scored), groups_without_spread=len(flat))


def _counted(**counts: int) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
