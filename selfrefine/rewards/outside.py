"""What is not built in as a reward: a plugin's, or one in a file of the user's (`path/to/file.py:name`).

Either is a `RewardKind`, or a plain function that takes a Sample and returns a Reward, a number in [0, 1] or
None (no score). With the attribute `function.group = True` it takes the samples of one prompt and returns a
list of as many, or yields them. It may be `async`. When it raises, its rows are unscored with the reason and
the run goes on (`boundary.py`).
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from decimal import Decimal
from itertools import islice
from numbers import Real
from typing import Any, cast

import msgspec

from selfrefine.boundary import Failed, behind, escaped, why
from selfrefine.errors import Interrupted, SelfrefineError
from selfrefine.records import Reward, Sample
from selfrefine.registry import BUILT_IN, Contained, Origin, outside_code
from selfrefine.rewards.base import (
    WITHHELD,
    BatchRewardFn,
    CorpusFigure,
    Each,
    EachGroup,
    RewardKind,
    RewardOptions,
    Scorer,
    checked,
    each,
    each_group,
    unscored,
)
from selfrefine.words import count


def adopt(name: str, value: object, origin: Origin) -> RewardKind | None:
    """A plain function as a reward of that name; None for what is none."""
    if not callable(value):
        return None
    origin = msgspec.structs.replace(origin, module=getattr(value, "__module__", ""))
    run: Callable[[Any], Any] = value
    score = each_group(run) if getattr(run, "group", False) else each(run)
    made = Scorer(name=name, score=score)
    return RewardKind(name=name, about=_about(value), make=lambda *_: made, origin=origin)


def _about(function: Any) -> str:
    return next(iter((function.__doc__ or "").strip().splitlines()), "a function in a file")


def make(kind: RewardKind, own: Any, options: RewardOptions) -> Scorer:
    """The scorer of any kind; that of foreign code runs behind the boundary. Raises: ConfigError."""
    with outside_code("reward", kind.name, kind.origin):
        made = kind.make(own, options)
        if not isinstance(made, Scorer) or bool(made.corpus) != kind.corpus:
            raise TypeError("`make` must return a Scorer, with a corpus figure if `corpus` is set")
    if kind.origin == BUILT_IN:
        return made
    corpus = made.corpus and _checked_corpus(kind, made.corpus)
    return msgspec.structs.replace(made, score=checked_results(kind, made.score, options), corpus=corpus)


def checked_results(kind: RewardKind, score: BatchRewardFn, options: RewardOptions) -> BatchRewardFn:
    """`score` of foreign code: its rewards go by the name it was asked for under, carry where they are from,
    and their details tell no reference unless the user asked for that."""

    def call(samples: Sequence[Sample]) -> list[Reward]:
        try:
            with behind(f"reward {kind.name}", options.timeout_s):
                own = [_copied(sample) for sample in samples]
                found = [score.one(own[0])] if isinstance(score, Each) else _run(score, own)
                pairs = zip(map(_awaited, found), samples, strict=True)
                return [_reward(kind, result, sample, options) for result, sample in pairs]
        except Failed as error:
            reason = str(error)
        except Interrupted:
            raise
        except SelfrefineError as error:  # of ours, that it called
            reason = why(error)
        return [unscored(kind.name, reason, kind.origin.signature)] * len(samples)

    return alike(score, call)


def _copied(sample: Sample) -> Sample:
    """With a `meta` of its own: what foreign code changes there must not reach the rows."""
    if not sample.task.meta:
        return sample
    task = msgspec.structs.replace(sample.task, meta=copy.deepcopy(sample.task.meta))
    return msgspec.structs.replace(sample, task=task)


def alike(score: BatchRewardFn, call: BatchRewardFn) -> BatchRewardFn:
    """`call` with as few rows at once as `score` allows, so that what goes wrong costs few rows."""
    if isinstance(score, Each):
        return Each(lambda sample: call([sample])[0])
    return EachGroup(call) if isinstance(score, EachGroup) else call


def _run(score: BatchRewardFn, samples: Sequence[Sample]) -> list[Any]:
    """What several rows came to, as a list of that length. Raises: Failed."""
    n = len(samples)
    found: Any = _awaited((score.group if isinstance(score, EachGroup) else score)(samples))
    if isinstance(found, str | bytes | Mapping | Set) or not isinstance(found, Iterable):
        raise Failed(f"it returned {_kind(found)}, not a list of {count(n, 'value')}")
    values = list(islice(found, n + 1))  # it may yield for ever
    if len(values) != n:
        more = "more than " if len(values) > n else ""
        values_said = count(min(n, len(values)), "value")
        raise Failed(f"it returned {more}{values_said} for {count(n, 'sample')}")
    return values


def _awaited(value: Any) -> Any:
    """What an `async def` comes to."""
    if not inspect.isawaitable(value):
        return value

    import asyncio  # 50 ms, for something rare

    async def run() -> Any:
        return await value

    waiting = run()
    try:
        return asyncio.run(waiting)
    finally:  # where there is a loop already, it has not begun
        waiting.close()
        if inspect.iscoroutine(value):
            value.close()


def _reward(kind: RewardKind, result: Any, sample: Sample, options: RewardOptions) -> Reward:
    if options.texts and isinstance(result, str):
        text = escaped(result).strip()
        result = Reward(name=kind.name, value=float(not text), detail=text or None)
    try:
        reward = _unchecked(kind, result)
    except Exception as error:  # noqa: BLE001  foreign types: a number or a text that cannot be made
        return unscored(kind.name, why(error), kind.origin.signature)
    detail = "" if options.reveal_references else reward.detail or ""
    if detail and _tells(detail, sample.task.references):
        return msgspec.structs.replace(reward, detail=WITHHELD)
    return reward


def _unchecked(kind: RewardKind, result: Any) -> Reward:
    name, signature = kind.name, kind.origin.signature
    if result is None:
        return unscored(name, "the function returned None", signature)
    if not isinstance(result, Reward):
        value = _number(result)
        if value is None:
            return unscored(name, f"the function returned {_kind(result)}, not a number", signature)
        return checked(name, value, None, signature)
    signature = "|".join(filter(None, (signature, escaped(result.signature or ""))))
    reason = None if result.error is None else escaped(result.error)
    if result.value is None:
        return unscored(name, reason or "no reason given", signature)
    value = _number(result.value)
    if value is None:
        return unscored(name, f"its value is {_kind(result.value)}, not a number", signature)
    detail = None if result.detail is None else escaped(result.detail)
    keep = result.keep
    if keep is not msgspec.UNSET and (type(keep) is not int or keep < 0):
        return unscored(name, f"its keep is {keep!r}, not a number of characters", signature)
    reward = checked(name, value, detail, signature)
    return msgspec.structs.replace(reward, error=reward.error or reason, keep=keep)


def _number(value: Any) -> float | None:
    """Numbers of any library: bool, Decimal, Fraction, NumPy's, an array or a tensor of no dimension."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    return float(value) if isinstance(value, Real | Decimal) else None


def _kind(value: object) -> str:
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return "a generator"
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}{f' of shape {tuple(shape)}' if isinstance(shape, tuple) else ''}"


def _checked_corpus(kind: RewardKind, corpus: Callable[[], CorpusFigure]) -> Callable[[], CorpusFigure]:
    """A plugin's corpus figure; what fails there names the plugin."""
    whose = "reward", kind.name, kind.origin

    def figure() -> CorpusFigure:
        with outside_code(*whose):
            return cast("CorpusFigure", Contained(corpus(), *whose))

    return figure


def _tells(detail: str, references: Sequence[str]) -> bool:
    """A whole-word search: the reference "1" is not in "10 words", "dog" is in "missing: dog"."""
    said = " ".join(detail.casefold().split())
    parts = (part for reference in references for part in (reference, reference.rpartition("####")[2]))
    wanted = {" ".join(part.casefold().split()) for part in parts}
    return any(re.search(rf"(?<!\w){re.escape(w)}(?!\w)", said) for w in wanted if w)
