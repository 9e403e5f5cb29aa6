"""Which items an objective can learn from. What falls out is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from selfrefine.config import SelectConfig
from selfrefine.errors import ConfigError, DataError
from selfrefine.objectives import OBJECTIVES
from selfrefine.objectives.advantages import groups, has_spread
from selfrefine.objectives.base import STRATEGIES, Item, ObjectiveKind, Rows
from selfrefine.registry import outside_code


def check_rows(name: str, select: SelectConfig) -> None:
    """Raises: ConfigError where what is selected is not what the objective `name` learns from.

    For both doors, a run and the filter. Found out after sampling, this costs the sampling; and a group that
    was cut to its best answers would be trained on without a word, with advantages that are wrong.
    """
    rows, strategy = OBJECTIVES.get(name).rows, select.strategy
    if select.learn == "verdicts" and rows != "answers":
        raise ConfigError(
            f"select.learn verdicts gives right verdicts only, which objective {name} has nothing to compare "
            "with: set objective.name=sft"
        )
    if strategy in STRATEGIES[rows]:
        return
    if rows == "answers":
        fitting = ", ".join(other.name for other in OBJECTIVES.usable() if other.rows == strategy)
        raise ConfigError(
            f"objective {name} learns from good answers, but select.strategy {strategy} is for {fitting}: "
            "choose another objective or strategy"
        )
    raise ConfigError(
        f"objective {name} learns from {'all scored answers' if rows == 'all' else rows}, "
        f"but select.strategy is {strategy}: set select.strategy={rows}"
    )


def fit(items: Sequence[Item], kind: ObjectiveKind, own: Any) -> tuple[list[Item], dict[str, int]]:
    """The items to train on, in order, and how many fell out, by reason. `own`: the objective's settings.

    Raises: DataError where the rows are of another kind than the objective's altogether.
    """
    kept, counts = fit_rows(items, kind)
    if kind.fit is not None:
        with outside_code("objective", kind.name, kind.origin):
            found = kind.fit(kept, own)
        counts |= _counted(weightless=len(kept) - len(found))
        kept = found
    return kept, counts


def fit_rows(items: Sequence[Item], kind: ObjectiveKind) -> tuple[list[Item], dict[str, int]]:
    """`fit` as far as it is known without token ids. Raises: DataError."""
    return _ROWS[kind.rows](items, kind.name)


def _answers(items: Sequence[Item], _name: str) -> tuple[list[Item], dict[str, int]]:
    # What a pair rejects is no example to follow.
    kept = [item for item in items if item.role != "rejected"]
    return kept, _counted(rejected=len(items) - len(kept))


def _all(items: Sequence[Item], name: str) -> tuple[list[Item], dict[str, int]]:
    kept, counts = _answers(items, name)
    scored = [item for item in kept if item.reward is not None]
    return scored, counts | _counted(unscored=len(kept) - len(scored))


def _labelled(items: Sequence[Item], name: str) -> tuple[list[Item], dict[str, int]]:
    kept = [item for item in items if item.role != "learn"]
    if items and not kept:
        raise DataError(
            f"{name} needs rows marked chosen or rejected, and there are none: use --select labels"
        )
    return kept, _counted(unlabelled=len(items) - len(kept))


def _paired(items: Sequence[Item], name: str) -> tuple[list[Item], dict[str, int]]:
    sides: dict[str, Counter[str]] = {}
    for item in items:
        if item.pair is not None:
            sides.setdefault(item.pair, Counter())[item.role] += 1
    if items and not sides:
        raise DataError(f"{name} needs pairs, and no row belongs to one: use --select pairs")
    whole = {pair for pair, roles in sides.items() if roles == Counter(chosen=1, rejected=1)}
    kept = [item for item in items if item.pair in whole]
    prompts = {item.pair: item.prompt_token_ids for item in kept}
    for item in kept:
        if prompts[item.pair] != item.prompt_token_ids:
            raise DataError(f"pair {item.pair}: its rows answer different prompts (row {item.id})")
    return kept, _counted(unpaired=len(items) - len(kept))


def _grouped(items: Sequence[Item], _name: str) -> tuple[list[Item], dict[str, int]]:
    scored = [item for item in items if item.reward is not None]
    flat = [m for m in groups(scored) if not has_spread([scored[i].reward or 0.0 for i in m])]
    dropped = {i for members in flat for i in members}
    kept = [item for i, item in enumerate(scored) if i not in dropped]
    return kept, _counted(unscored=len(items) - len(scored), groups_without_spread=len(flat))


def _counted(**counts: int) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


_ROWS: dict[Rows, Callable[[Sequence[Item], str], tuple[list[Item], dict[str, int]]]] = {
    "answers": _answers,
    "all": _all,
    "pairs": _paired,
    "labels": _labelled,
    "groups": _grouped,
}
