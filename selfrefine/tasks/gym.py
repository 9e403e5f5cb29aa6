"""reasoning-gym's procedural datasets: gym:chain_sum. The library takes a second to import, so it is lazy."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import msgspec

from selfrefine.errors import ConfigError
from selfrefine.records import Message, Task
from selfrefine.seeds import derive
from selfrefine.tasks.base import GENERATED, Located, SourceKind, TaskOptions, ask
from selfrefine.tasks.gym_import import modules, register
from selfrefine.words import in_words, nearest


def read(name: str, options: TaskOptions) -> Iterator[Located]:
    """`n` tasks of dataset `name`, repeats included: small settings have few distinct ones (see splits).

    meta["gym"] holds the dataset's name and, as JSON gives it back (tuples are lists), what its own scorer
    reads of the entry beside question and answer, which the task holds. tags["difficulty"] holds the entry's
    own values of what the dataset calls difficulty; tags["operators"] the operators of its expression.

    Raises: ConfigError for an unknown dataset or setting, or one that the library refuses.
    """
    where = f"gym:{name}"
    dataset = _create(name, where, options)
    for index in range(GENERATED if options.n is None else options.n):
        try:
            entry = json.loads(json.dumps(dataset[index], allow_nan=False))
        except Exception as error:
            raise ConfigError(f"{where}: task {index + 1} cannot be made: {_said(error)}") from error
        answer, prompt = entry.get("answer"), ask(entry["question"], options)
        metadata = entry.get("metadata") or {}
        tags = {"difficulty": _difficulty(metadata), "operators": _operators(metadata, entry["question"])}
        yield (
            f"{where}:{index + 1}",
            Task(
                id="",
                prompt=prompt,
                references=() if answer is None else (str(answer),),
                tags={tag: value for tag, value in tags.items() if value},
                meta={"gym": {"dataset": name} | _scored_by(entry, prompt, type(dataset))},
            ),
        )


def _scored_by(entry: dict[str, Any], prompt: Sequence[Message], dataset: type) -> dict[str, Any]:
    """{"entry": what the dataset's scorer reads and the task does not hold already}, or {}."""
    read = _read_by_scorer(dataset)
    kept = {key: value for key, value in entry.items() if key in read}
    if isinstance(kept.get("answer"), str):
        del kept["answer"]
    if kept.get("question") == prompt[-1].content:
        del kept["question"]
    return {"entry": kept} if kept else {}


@cache
def _read_by_scorer(dataset: Any) -> frozenset[str]:
    """The parts of an entry that `score_answer` names in its source; all where it passes the entry on.

    Most read the answer alone, and then a row need not carry the rest: it is three times as long as the task.
    """
    code = re.sub(r'""".*?"""', "", inspect.getsource(dataset.score_answer), flags=re.DOTALL)
    named = {"answer", *re.findall(r"""["'](\w+)["']""", code)}
    passed_on = re.search(r"\bentry\b(?!\[|\.get\(|:)", code)
    return frozenset(named | {"question", "metadata"} if passed_on else named)


def _create(name: str, where: str, options: TaskOptions) -> Any:
    factory, known = sys.modules.get("reasoning_gym.factory"), sorted(modules())
    if known and name not in known and (factory is None or name not in factory.DATASETS):
        raise ConfigError(_unknown(where, name, known))
    register(name)
    from reasoning_gym.factory import DATASETS, create_dataset

    if name not in DATASETS:
        raise ConfigError(_unknown(where, name, sorted(DATASETS)))
    fields = typing.get_type_hints(DATASETS[name][1])
    settings = {key: _converted(where, key, value, fields) for key, value in options.settings.items()}
    try:
        # The library draws task i from Random(seed + i): with the plain seed, runs with seeds 0 and 1 would
        # share all tasks but one.
        return create_dataset(
            name,
            size=GENERATED if options.n is None else options.n,
            seed=derive(options.seed, "tasks", "gym", name) % 2**31,
            **settings,
        )
    except Exception as error:
        raise ConfigError(f"{where}: {_said(error)}") from error


def _unknown(where: str, name: str, known: Sequence[str]) -> str:
    if not name:
        return f"gym: names one of {len(known)} datasets, as in gym:chain_sum\n{', '.join(known)}"
    alike = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(alike)}? " if alike else ""
    return f"{where}: reasoning-gym has no such dataset; {hint}`selfrefine tasks gym:` lists all {len(known)}"


def _converted(where: str, key: str, value: Any, fields: dict[str, Any]) -> Any:
    """The setting as its field's type: "2" for an int, "[1, 2]" for a list. Raises: ConfigError."""
    if key in ("seed", "size"):
        raise ConfigError(f"{where}: set {key} with {'--seed' if key == 'seed' else '-n'}")
    if key not in fields:
        raise ConfigError(f"{where}: no setting {key!r}{nearest(key, fields)}")
    try:
        if isinstance(value, str) and value[:1] in ("[", "{"):
            value = msgspec.json.decode(value.encode())
        return msgspec.convert(value, fields[key], strict=False)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ConfigError(f"{where}: {key}={value}: {in_words(str(error)) or error}") from None


def _difficulty(metadata: dict[str, Any]) -> str:
    """ "num_digits=1 num_terms=2": for each knob, the entry's own value where it has a plain one.

    What stands under metadata.difficulty itself is mostly the range that was asked for, the same in every
    task, and would stratify nothing.
    """
    knobs = metadata.get("difficulty")
    if not isinstance(knobs, dict):
        return "" if knobs is None else str(knobs)
    own = {key: metadata.get(key) for key in sorted(knobs)}
    return " ".join(f"{key}={value}" for key, value in own.items() if isinstance(value, int | str))


_OPERATOR = re.compile(r"""(?<=[\w)\]'])\s*([-+]|[^-+\w\s()\[\].,;:=?!"'$]+)""")
"""A sign after an operand: the minus of -5 has none before it, and `5 - -3` has one operator."""


def _operators(metadata: dict[str, Any], question: str) -> str:
    """ "+ -": the operators of the entry's expression, each once, sorted; "" where it has none.

    Only of what the question shows: countdown's expression is its solution, modulo_grid's operation its rule.
    """
    shown = {key: text for key in _EXPRESSIONS if isinstance(text := metadata.get(key), str)}
    found = {sign for text in shown.values() if text in question for sign in _OPERATOR.findall(text)}
    return " ".join(sorted(found))


_EXPRESSIONS = ("expression", "equation", "problem")
"""Keys under which datasets keep it."""


def _said(error: Exception) -> str:
    return f"{error}".strip() or type(error).__name__


GYM = SourceKind(
    name="gym",
    spelling="gym:NAME",
    about="a generated reasoning-gym dataset; its settings with --set",
    example="selfrefine tasks gym:chain_sum --set max_terms=2 -n 64",
    read=read,
    own_settings=True,
)
