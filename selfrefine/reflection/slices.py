"""Sets of tasks, told by the task alone: by tag, by figures of its question, by words in it.

The question is the last user message. Nothing here looks at an answer or a reward, so what is cut can't
be biased by them, and a slice that was found on the gate tasks can be drawn from the training tasks.

Rows are cut into tasks once (`cut`): one array of task numbers for each slice. Words are letters between
other characters, case-folded, each other character (an operator, a sign) a word of its own, and in scripts
without spaces each letter. Numbers are no words, since their figures are looked at instead, and no n-gram
goes over one.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from selfrefine.records import Task
from selfrefine.reflection.findings import Slice
from selfrefine.rewards.scripts import unspaced

FEW = 5
"""Tasks that a slice must hold, and leave outside."""
SHARE = 0.02
"""The same as a share: of many tasks, a word in five of them is nothing to act on, and each costs power."""
MOST_TAGS = 100
MOST_WORDS = 300
"""Words looked at, and as many n-grams: the ones in the most tasks."""
N_GRAM = 3
_ENDS = 250
"""Words at the beginning and at the end of a longer question that are looked at."""
_SAME = 0.95
"""An n-gram in so large a share of the tasks of one of its words says nothing more than the word."""
_VALUES = 6
"""A figure with more values is cut at its quartiles."""
_ADDENDS = 4
_DIGITS = 300
_NAME = 60

_NUMBER = "\0"
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u0670\u0900-\u0dff"
_TOKEN = re.compile(rf"(?:[^\W\d_]|[{_MARKS}])+(?:['’][^\W\d_]+)*|[^\w\s]|_")
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")

Tasks = NDArray[np.int64]
"""Sorted numbers of tasks."""
_Key = TypeVar("_Key", str, tuple[str, str])


def question(task: Task) -> str:
    """The last user message, or the last message where no user speaks."""
    for message in reversed(task.prompt):
        if message.role == "user":
            return message.content
    return task.prompt[-1].content if task.prompt else ""


def numbers(text: str) -> list[str]:
    """The numbers in it as they stand, without signs."""
    return _NUMBERS.findall(text)


def words(text: str) -> list[str]:
    """The words in order, each number as one mark; of a long text the beginning and the end."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    found = _TOKEN.findall(_NUMBERS.sub(_NUMBER, plain).casefold())
    if not plain.isascii():
        found = [part for token in found for part in (token if unspaced(token) else (token,))]
    return found if len(found) <= 2 * _ENDS else [*found[:_ENDS], _NUMBER, *found[-_ENDS:]]


def _prompt_words(task: Task) -> float | None:
    text = question(task)
    return float(len(words(text)) if unspaced(text) else len(text.split()))


def _numbers(task: Task) -> float | None:
    return float(len(numbers(question(task))))


def _digits(task: Task) -> float | None:
    found = numbers(question(task))
    return float(max((sum(map(str.isdecimal, one)) for one in found), default=0))


def _carries(task: Task) -> float | None:
    """How often one is carried when the whole numbers of the question are added; None unless it has 2 to 4.

    Each carry makes the digit sum of the total 9 smaller than those of the addends together.
    """
    found = numbers(question(task))
    if not 2 <= len(found) <= _ADDENDS or not all(one.isdecimal() and len(one) <= _DIGITS for one in found):
        return None
    values = [int(one) for one in found]
    return float((sum(map(_digit_sum, values)) - _digit_sum(sum(values))) // 9)


def _digit_sum(value: int) -> int:
    return sum(map(int, str(value)))


def _reference_words(task: Task) -> float | None:
    if not task.references:
        return None
    text = task.references[0]
    return float(len(words(text)) if unspaced(text) else len(text.split()))


_FIGURES: dict[str, tuple[str, Callable[[Task], float | None]]] = {
    "numbers": ("numbers", _numbers),
    "digits": ("digits", _digits),
    "carries": ("carries", _carries),
    "prompt-words": ("prompt words", _prompt_words),
    "reference-words": ("reference words", _reference_words),
}
"""By `Slice.by`: what people call it, and how it is computed. In the order of how simple a name is."""


def holds(cut: Slice, task: Task) -> bool:
    """Whether a task is in the slice; it costs one pass over its question."""
    if cut.by == "tag":
        return task.tags.get(cut.key) == cut.value
    if cut.by == "word":
        wanted = cut.key.split(" ")
        own, n = words(question(task)), len(wanted)
        return any(own[i : i + n] == wanted for i in range(len(own) - n + 1))
    figure = _FIGURES[cut.by][1](task)
    return figure is not None and _within(cut, figure)


def _within(cut: Slice, figure: float) -> bool:
    return (cut.low is None or figure >= cut.low) and (cut.high is None or figure < cut.high)


def name(cut: Slice) -> str:
    """As people read it, on one line: `op = -`, `digits >= 2`, `word "-"`."""
    if cut.by == "tag":
        return f"{one_line(cut.key, _NAME)} = {one_line(cut.value, _NAME)}"
    if cut.by == "word":
        return f'word{"s" if " " in cut.key else ""} "{one_line(cut.key, _NAME)}"'
    what = _FIGURES[cut.by][0]
    if cut.low is None:
        return f"{what} < {cut.high:g}"
    if cut.high is None:
        return f"{what} >= {cut.low:g}"
    if cut.high == cut.low + 1:
        return f"{what} = {cut.low:g}"
    return f"{what} {cut.low:g} to {cut.high - 1:g}"


def one_line(text: str, most: int) -> str:
    """Text from outside as part of a line: no control or invisible character, at most `most` long."""
    seen = "".join(c if _visible(c) else " " for c in text[: 4 * most])
    line = " ".join(seen.split())
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 1] + "…"


def _visible(c: str) -> bool:
    return unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def cut(tasks: Sequence[Task]) -> dict[str, tuple[Slice, Tasks]]:
    """All slices worth looking at, by name: those of enough tasks, no two with the same ones.

    Of slices with the same tasks the simplest stays: a tag, then a word, then a figure, then an n-gram. Names
    are distinct, and the same for the same tasks in the same order.
    """
    least = max(FEW, math.ceil(SHARE * len(tasks)))
    seen: set[bytes] = set()
    kept: dict[str, tuple[Slice, Tasks]] = {}
    texts = [words(question(task)) for task in tasks]
    single = _words(texts, least)
    usable = {word: own for word, own in single.items() if len(own) <= len(tasks) - least}
    ways: tuple[Iterator[tuple[Slice, Tasks]], ...] = (
        _by_tag(tasks, least),
        ((Slice(by="word", key=key), found) for key, found in _most(usable, MOST_WORDS)),
        _by_figure(tasks),
        _n_grams(texts, single, least),
    )
    for way in ways:
        for one, members in way:
            if not least <= len(members) <= len(tasks) - least or (key := members.tobytes()) in seen:
                continue
            seen.add(key)
            label, again = name(one), 2
            while label in kept:
                label, again = f"{name(one)} ({again})", again + 1
            kept[label] = (one, members)
    return kept


def _by_tag(tasks: Sequence[Task], least: int) -> Iterator[tuple[Slice, Tasks]]:
    found: dict[tuple[str, str], list[int]] = {}
    for i, task in enumerate(tasks):
        for pair in task.tags.items():
            found.setdefault(pair, []).append(i)
    large = {pair: own for pair, own in found.items() if len(own) >= least}
    for (key, value), own in _most(large, MOST_TAGS):
        yield Slice(by="tag", key=key, value=value), own


def _by_figure(tasks: Sequence[Task]) -> Iterator[tuple[Slice, Tasks]]:
    for by, (_, figure) in _FIGURES.items():
        known = [math.nan if (value := figure(task)) is None else value for task in tasks]
        values_N = np.array(known, dtype=np.float64)
        for low, high in _edges(values_N[~np.isnan(values_N)]):
            inside = np.ones(len(values_N), dtype=bool) & ~np.isnan(values_N)
            if low is not None:
                inside &= values_N >= low
            if high is not None:
                inside &= values_N < high
            yield Slice(by=by, low=low, high=high), np.flatnonzero(inside)  # type: ignore[arg-type]


def _edges(values_N: NDArray[np.float64]) -> Iterator[tuple[float | None, float | None]]:
    """Both sides of each edge, then what lies between two; a figure that never varies has none."""
    distinct = np.unique(values_N)
    if len(distinct) < 2:
        # It may be unknown for other tasks; then having it at all is a slice.
        yield from ((float(v), None) for v in distinct)
        return
    if len(distinct) > _VALUES:
        quartiles = np.ceil(np.quantile(values_N, [0.25, 0.5, 0.75]))
        edges = [float(v) for v in np.unique(quartiles) if v > distinct[0]]
        between = list(pairwise(edges))
    else:
        edges = [float(v) for v in distinct[1:]]
        between = [(float(v), float(v) + 1) for v in distinct]
    yield from ((edge, None) for edge in edges)
    yield from ((None, edge) for edge in edges)
    yield from between


def _words(texts: Sequence[Sequence[str]], least: int) -> dict[str, Tasks]:
    """The tasks of each word that is in enough of them, and not the number mark."""
    counts = Counter(word for text in texts for word in set(text))
    common = {word for word, n in counts.items() if n >= least and word != _NUMBER}
    found: dict[str, list[int]] = {word: [] for word in common}
    for i, text in enumerate(texts):
        for word in common.intersection(text):
            found[word].append(i)
    return {word: np.array(own, dtype=np.int64) for word, own in found.items()}


def _n_grams(
    texts: Sequence[Sequence[str]], single: Mapping[str, Tasks], least: int
) -> Iterator[tuple[Slice, Tasks]]:
    """Two or three words in a row that are in clearly fewer tasks than each of their words."""
    large: dict[str, Tasks] = {}
    texts = [[word if word in single else _NUMBER for word in text] for text in texts]
    shorter: set[tuple[str, ...]] = {(word,) for word in single}
    for n in range(2, N_GRAM + 1):
        counts: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            counts.update(set(zip(*(text[k:] for k in range(n)), strict=False)))
        # One in enough tasks is made of parts in enough tasks, so the rest need not be kept.
        common = {gram for gram, many in counts.items() if many >= least and {gram[:-1], gram[1:]} <= shorter}
        if not common:
            break
        found: dict[tuple[str, ...], list[int]] = {gram: [] for gram in common}
        for i, text in enumerate(texts):
            for gram in common.intersection(zip(*(text[k:] for k in range(n)), strict=False)):
                found[gram].append(i)
        for gram, own in found.items():
            if len(own) < _SAME * min(len(single[word]) for word in gram):
                large[" ".join(gram)] = np.array(own, dtype=np.int64)
        shorter = common
    for key, members in _most(large, MOST_WORDS):
        yield Slice(by="word", key=key), members


def _most(found: Mapping[_Key, Sequence[int] | Tasks], most: int) -> list[tuple[_Key, Tasks]]:
    """Those in the most tasks, ties by name."""
    ranked = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))[:most]
    return [(key, np.asarray(own, dtype=np.int64)) for key, own in ranked]
