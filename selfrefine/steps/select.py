"""The step `select`: which scored answers are worth learning from. Every row that falls out is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

from msgspec import UNSET, Struct

from selfrefine.config import SelectConfig
from selfrefine.errors import ConfigError
from selfrefine.records import Sample
from selfrefine.seeds import derive, generator
from selfrefine.steps.select_broken import Breaker
from selfrefine.steps.select_candidates import Fate, candidates, fit, in_band, ranked, unique
from selfrefine.steps.select_compared import labels, pairs, whole_groups
from selfrefine.steps.select_verdicts import verdicts


class Selection(Struct, frozen=True, kw_only=True):
    """The chosen rows with their lessons, and what became of the others.

    Single answers stand in input order; pairs side by side, groups together, by task.
    """

    rows: list[Sample]
    counts: dict[str, int]


def select(samples: Sequence[Sample], config: SelectConfig, breaker: Breaker | None = None) -> Selection:
    """What the strategy takes from each prompt's candidates (`select_candidates.py`).

    best-of-n takes what lies above its group's minimum (a group without spread teaches nothing), or, with
    min_reward, what reaches it; then the best of each prompt, ties by index. threshold takes min_reward and
    more (1 where none is given); all takes every scored, finished answer. pairs, labels and groups stand in
    `select_compared.py`, what a judge learns in `select_verdicts.py`. breaker: for `corrections = broken`.

    Unscored rows and errors always fall out, and truncated ones (an answer cut off would teach never to stop)
    except from groups, where their low reward teaches to come to an end. Raises: ConfigError.
    """
    check(config)
    if config.corrections == "broken" and breaker is None:
        raise ConfigError(
            "select.corrections broken: name the rewards that find out what is wrong with a broken answer "
            "(reward.use), and set critique.source = rewards, a reward's name or file.py:function"
        )
    fate: Fate = Counter({"samples": len(samples)})
    rows: list[Sample] = []
    if config.learn == "verdicts":
        rows = verdicts(in_band(samples, config, fate), config, fate)
        fate["prompts_selected"] = len({row.task.id for row in rows})
    else:
        for group in candidates(samples, config, fate, breaker):
            chosen = STRATEGIES[config.strategy](group, config, fate)
            fate["prompts_selected"] += bool(chosen)
            rows += chosen
    if config.learn == "answers" and config.strategy in SINGLE:
        place = {row.id: i for i, row in enumerate(samples)}
        rows.sort(key=lambda row: place[row.id])
    return Selection(rows=rows, counts={**dict[str, int](fate.items()), "selected": len(rows)})


def check(config: SelectConfig) -> None:
    """Raises: ConfigError for settings that contradict each other: none is ignored in silence."""
    strategy = config.strategy
    if config.learn == "verdicts" and strategy != "all":
        raise ConfigError(
            f"select.learn verdicts takes as many right answers as wrong ones: set select.strategy=all, "
            f"not {strategy}"
        )
    if config.learn != "answers" and strategy not in SINGLE:
        raise ConfigError(
            f"select.learn {config.learn}: each turn has its own prompt, so select.strategy {strategy} "
            f"has nothing to compare; use {', '.join(SINGLE)}"
        )
    if config.learn not in ("answers", "verdicts") and config.candidates != "all":
        raise ConfigError(f"select.candidates {config.candidates} needs select.learn answers")
    if config.band is not None and config.band[0] > config.band[1]:
        raise ConfigError(f"select.band {list(config.band)}: give the lower end first")
    if config.chosen == "references" and strategy != "pairs":
        raise ConfigError("select.chosen references needs select.strategy pairs")
    if strategy == "groups" and config.candidates == "revisions":
        raise ConfigError("select.strategy groups learns from drafts: revisions have other prompts")
    for key, set_, taken, way in (
        (
            "corrections",
            config.corrections != "own",
            config.learn in ("revisions", "both"),
            "learn = revisions",
        ),
        (
            "min_similarity",
            config.min_similarity > 0,
            config.corrections in ("near", "broken"),
            "corrections = near",
        ),
    ):
        if set_ and not taken:
            raise ConfigError(f"select.{key} is not used without select.{way}; set that, or leave it out")
    for key, set_, taken in (
        ("margin", config.margin > 0, strategy == "pairs" and config.chosen == "samples"),
        ("pairs_per_prompt", config.pairs_per_prompt > 1, strategy == "pairs"),
        ("max_per_prompt", config.max_per_prompt is not None, strategy not in ("pairs", "groups")),
        ("min_reward", config.min_reward is not None, strategy != "groups" and config.chosen == "samples"),
    ):
        if set_ and not taken:
            more = " with references as the chosen side" if config.chosen == "references" else ""
            raise ConfigError(f"select.{key} is not used by select.strategy {strategy}{more}; leave it out")


def _singles(group: Sequence[Sample], config: SelectConfig, fate: Fate) -> list[Sample]:
    """best-of-n, threshold and all."""
    good = [row for row in group if fit(row, fate)]
    passing = _passing(good, config)
    fate["below"] += len(good) - len(passing)
    if good and not passing:
        fate["prompts_without_spread"] += len({row.reward for row in good}) == 1
    order = ranked(passing)
    order = unique(order, fate) if config.dedupe else order
    cap = config.max_per_prompt or (1 if config.strategy == "best-of-n" else len(order))
    fate["over_the_cap"] += max(0, len(order) - cap)
    kept = {row.id for row in order[:cap]}
    return [row for row in group if row.id in kept]


def _passing(good: list[Sample], config: SelectConfig) -> list[Sample]:
    if config.strategy == "threshold":
        floor = 1.0 if config.min_reward is None else config.min_reward
    elif config.strategy == "all" or config.min_reward is not None or config.learn != "answers":
        floor = config.min_reward or 0.0  # a turn is a candidate because it made the answer better
    else:
        lowest = min((row.reward or 0.0 for row in good), default=0.0)
        return [row for row in good if (row.reward or 0.0) > lowest]
    return [row for row in good if (row.reward or 0.0) >= floor]


SINGLE = ("best-of-n", "threshold", "all")
STRATEGIES: dict[str, Callable[[Sequence[Sample], SelectConfig, Fate], list[Sample]]] = {
    **dict.fromkeys(SINGLE, _singles),
    "pairs": pairs,
    "labels": labels,
    "groups": whole_groups,
}


CHARACTERS_A_TOKEN = 4
"""Of English under the usual vocabularies; for an estimate."""


def replay(
    current: Sequence[Sample], earlier: Iterable[Sample], share: float, seed: int, *, grouped: bool = False
) -> list[Sample]:
    """Rows of earlier rounds to learn again, so that they make up at most `share` of the training tokens.

    A seeded draw without replacement; a pair, and with `grouped` all of a round's answers to a task, come
    whole or not at all. The cap keeps a round's cost constant however many rounds lie behind.
    """
    if not share:
        return []
    budget = sum(map(_tokens, current)) * share / (1.0 - share)
    pool: dict[Hashable, list[Sample]] = {}
    for row in earlier:
        pair = None if row.lesson is UNSET else row.lesson.pair
        key = (row.round, row.task.id) if grouped else (row.round, pair or row.id, pair is None)
        pool.setdefault(key, []).append(row)
    units = list(pool.values())
    taken = []
    for i in generator(derive(seed, "replay")).permutation(len(units)).tolist():
        if (cost := sum(map(_tokens, units[i]))) <= budget:
            budget -= cost
            taken.append(i)
    return [row for i in sorted(taken) for row in units[i]]


def _tokens(row: Sample) -> int:
    """Of a row without ids (another model's critique) by its text: one of no cost would always be taken."""
    prompt = len(row.prompt_token_ids) or sum(_estimate(message.content) for message in row.context)
    return prompt + (len(row.token_ids) or _estimate(row.text))


def _estimate(text: str) -> int:
    return -(-len(text) // CHARACTERS_A_TOKEN)
