"""What a policy still knows of what it was not trained on: teacher-forced, no sampling, about a second.

Plain text, not a chat, so that it says the same of any model. An item's answer is scored against its
alternatives by mean logprob per token; perplexity is exp of the mean nats per token over all the answers.
Not a benchmark: 24 items say whether something broke, not how good a model is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from selfrefine.engines.base import Engine, require
from selfrefine.records import Sample, Task
from selfrefine.seeds import derive

LESSONS = 8
"""Answers of each earlier round that are scored again, and tasks that are answered again."""


class Item(NamedTuple):
    prompt: str
    answer: str
    others: tuple[str, ...] = ()
    """Alternatives of about the same length; none: the item counts in the perplexity only."""


GENERAL = (
    Item("The capital of France is", " Paris", (" Madrid", " Berlin")),
    Item("The opposite of hot is", " cold", (" warm", " loud")),
    Item("A week has seven", " days", (" months", " hours")),
    Item("Bees make", " honey", (" milk", " bread")),
    Item("The sun rises in the", " east", (" west", " north")),
    Item("Water freezes and becomes", " ice", (" steam", " sand")),
    Item("At night one can see the moon and the", " stars", (" rainbow", " sunrise")),
    Item("She was hungry, so she ate some", " food", (" shoes", " music")),
    Item("To open the locked door he needed a", " key", (" spoon", " pillow")),
    Item("The largest ocean on Earth is the", " Pacific", (" Atlantic", " Arctic")),
    Item("A baby cat is called a", " kitten", (" puppy", " calf")),
    Item("People read books in a", " library", (" kitchen", " garage")),
    Item("One, two, three, four,", " five", (" nine", " two")),
    Item("The children are playing in the park, and they", " are", (" is", " am")),
    Item("Yesterday I", " went", (" goes", " going")),
    Item("The heart pumps", " blood", (" air", " food")),
    Item("It was raining, so he opened his", " umbrella", (" wallet", " window")),
    Item("Shakespeare wrote plays and", " poems", (" software", " bridges")),
    Item("A doctor is somebody who", " takes care of people who are ill."),
    Item("In winter the days are short, and in summer", " they are long and warm."),
    Item("Once upon a time there was a little girl who lived", " in a house near the forest."),
    Item("Plants need light, water and", " air in order to grow."),
    Item("The train was late, so we had to", " wait at the station for an hour."),
    Item("Thank you very much for your letter. I was", " happy to hear from you."),
)


def general(engine: Engine) -> dict[str, float | None]:
    """`accuracy` over the items with alternatives, and `perplexity`, under the engine's policy."""
    require(engine, "score", "guards.probe needs logprobs (guards.probe=false turns it off)")
    asked = [(item, text) for item in GENERAL for text in (item.answer, *item.others)]
    scored = engine.score(
        [engine.encode_text(item.prompt) for item, _ in asked],
        [engine.encode_text(text) for _, text in asked],
    )
    means = {pair: math.fsum(row) / max(1, len(row)) for pair, row in zip(asked, scored, strict=True)}
    right = [
        all(means[item, item.answer] > means[item, other] for other in item.others)
        for item in GENERAL
        if item.others
    ]
    answers = [row for (item, text), row in zip(asked, scored, strict=True) if text == item.answer]
    return {"accuracy": sum(right) / len(right), "perplexity": _perplexity(answers)}


def lessons(
    engine: Engine, earlier: Mapping[str, Sequence[Sample]], seed: int
) -> dict[str, dict[str, float | None]]:
    """`perplexity` of up to LESSONS answers that each earlier round learnt from; by the round's name.

    Always the same ones of a round, so that a column of the matrix can be read downwards.
    """
    found: dict[str, dict[str, float | None]] = {}
    for name, rows in earlier.items():
        chosen = _few([row for row in rows if row.prompt_token_ids and row.token_ids], seed)
        if chosen:
            scored = engine.score([r.prompt_token_ids for r in chosen], [r.token_ids for r in chosen])
            found[name] = {"perplexity": _perplexity(scored)}
    return found


def tasks(earlier: Mapping[str, Sequence[Sample]], seed: int) -> dict[str, list[Task]]:
    """Up to LESSONS tasks that each earlier round learnt from, always the same ones; by the round's name."""
    return {
        name: [row.task for row in _few(list({row.task.id: row for row in rows}.values()), seed)]
        for name, rows in earlier.items()
        if rows
    }


def _few(rows: Sequence[Sample], seed: int) -> list[Sample]:
    return sorted(rows, key=lambda row: derive(seed, "probe", row.id))[:LESSONS]


def sources(held: Sequence[Sample]) -> dict[str, dict[str, float | None]]:
    """`mean` reward and `tasks` by the tasks' tag `source`, where gate tasks have one."""
    by_source: dict[str, dict[str, list[float]]] = {}
    for row in held:
        if (name := row.task.tags.get("source")) and row.reward is not None:
            by_source.setdefault(name, {}).setdefault(row.task.id, []).append(row.reward)
    return {
        f"source {name}": {
            "mean": math.fsum(sum(values) / len(values) for values in tasks.values()) / len(tasks),
            "tasks": float(len(tasks)),
        }
        for name, tasks in sorted(by_source.items())
    }


def _perplexity(rows: Sequence[Sequence[float]]) -> float | None:
    """Null where it is no finite number, or there is no token."""
    tokens = sum(map(len, rows))
    nats = -math.fsum(logprob for row in rows for logprob in row)
    if not tokens or not math.isfinite(nats):
        return None
    return math.exp(min(700.0, nats / tokens))
