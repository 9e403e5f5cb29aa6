"""Constrained text: one short sentence that uses all the given words (concepts:4).

The words are the project's own list (words.txt): common things, and actions that have regular forms, so
that `coverage` can tell "carried" for "carry".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import resources
from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.errors import ConfigError, DataError
from selfrefine.records import Task
from selfrefine.seeds import derive, generator
from selfrefine.tasks.base import GENERATED, Located, SourceKind, TaskOptions, ask

TEMPLATE = "Write one short sentence that uses all of these words: {source}."


class ConceptsSettings(Struct, frozen=True):
    verbs: Annotated[
        int | None, Meta(description="Number of verbs among the words; not set: 1, or 0 for a single word.")
    ] = None


def words() -> dict[str, list[str]]:
    """The list, as {"noun": [...], "verb": [...]}."""
    listed: dict[str, list[str]] = {"noun": [], "verb": []}
    for line in resources.files("selfrefine.tasks").joinpath("words.txt").read_text().splitlines():
        word, kind = line.split("\t")
        listed[kind].append(word)
    return listed


def read(name: str, options: TaskOptions) -> Iterator[Located]:
    """`n` distinct tasks of `name` words each, one of them a verb (setting `verbs`).

    The words stand in alphabetical order, so the same set never makes two prompts that could fall into two
    splits. meta["concepts"] lists them; there is no reference. The first k tasks do not depend on n.

    Raises: ConfigError for a bad count; DataError where there are not n distinct sets.
    """
    where = f"concepts:{name}"
    own: ConceptsSettings = options.settings
    listed = words()
    try:
        size = int(name)
    except ValueError:
        raise ConfigError(f"{where}: the number of words must be a whole number") from None
    verbs = min(1, size - 1) if own.verbs is None else own.verbs
    nouns = size - verbs
    if not (1 <= size <= 12 and 0 <= verbs <= size):
        raise ConfigError(f"{where}: use 1 to 12 words, and no more verbs than words")
    possible = math.comb(len(listed["noun"]), nouns) * math.comb(len(listed["verb"]), verbs)
    wanted = GENERATED if options.n is None else options.n
    if wanted > possible:
        raise DataError(
            f"{where}: only {possible:,} distinct sets of words exist, and {wanted:,} tasks were requested"
        )
    rng = generator(derive(options.seed, "tasks", "concepts", size, verbs))
    seen: set[tuple[str, ...]] = set()
    while len(seen) < wanted:
        drawn = [listed["noun"][i] for i in rng.choice(len(listed["noun"]), nouns, replace=False)]
        drawn += [listed["verb"][i] for i in rng.choice(len(listed["verb"]), verbs, replace=False)]
        chosen = tuple(sorted(drawn))
        if chosen in seen:
            continue
        seen.add(chosen)
        prompt = ask(", ".join(chosen), options, TEMPLATE)
        yield f"{where}:{len(seen)}", Task(id="", prompt=prompt, meta={"concepts": list(chosen)})


CONCEPTS = SourceKind(
    name="concepts",
    spelling="concepts:N",
    about="one short sentence that uses N given words",
    example="selfrefine tasks concepts:4 --set verbs=1 -n 64",
    read=read,
    settings=ConceptsSettings,
)
