"""What is not built in as a reward: a plugin's, or one in a file of the user's (`path/to/file.py:name`).

Either is a `RewardKind`, or a plain function that takes a Sample and returns a Reward, a number in [0, 1] or
None (no score). With the attribute `function.group = True` it takes the samples of one prompt and returns a
list of as many. When it raises, its rows are unscored with the reason and the run goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import msgspec

from selfrefine.records import Reward, Sample
from selfrefine.registry import Origin, quiet_stdout, why
from selfrefine.rewards.base import (
    BatchRewardFn,
    RewardKind,
    RewardOptions,
    Scorer,
    checked,
    each,
    each_group,
    unscored,
)


def adopt(name: str, value: object, origin: Origin) -> RewardKind | None:
    """A plain function as a reward of that name; None for what is none."""
    if not callable(value):
        return None
    origin = msgspec.structs.replace(origin, module=getattr(value, "__module__", ""))
    return RewardKind(name=name, about=_about(value), make=_of_function(name, value), origin=origin)


def _about(function: Any) -> str:
    return next(iter((function.__doc__ or "").strip().splitlines()), "a function of one's own")


def checked_results(kind: RewardKind, score: BatchRewardFn, options: RewardOptions) -> BatchRewardFn:
    """`score` of foreign code: its rewards go by the name it was asked for under, carry where they are from,
    and their details tell no reference unless the user asked for that."""

    def run(samples: Sequence[Sample]) -> list[Reward]:
        try:
            with quiet_stdout():
                results: list[Any] = list(score(samples))
            if len(results) != len(samples):
                raise ValueError(f"{len(results)} values for {len(samples)} samples")
        except (Exception, SystemExit) as error:  # noqa: BLE001  outside code: its rows fail, not the run
            results = [unscored(kind.name, why(error))] * len(samples)
        pairs = zip(results, samples, strict=True)
        return [_reward(kind.name, r, s, kind.origin.signature, options.reveal_references) for r, s in pairs]

    return run


def _of_function(name: str, run: Callable[[Any], Any]) -> Callable[[object, RewardOptions], Scorer]:
    """A factory. What the function returns is looked at in `checked_results`."""

    def one(sample: Sample) -> Any:
        try:
            return run(sample)
        except (Exception, SystemExit) as error:  # noqa: BLE001  outside code: the row fails, not the run
            return unscored(name, why(error))

    def group(samples: Sequence[Sample]) -> list[Any]:
        try:
            results = list(run(samples))
            if len(results) != len(samples):
                raise ValueError(f"{len(results)} values for {len(samples)} samples")
        except (Exception, SystemExit) as error:  # noqa: BLE001  outside code: the group fails, not the run
            return [unscored(name, why(error))] * len(samples)
        return results

    score = each_group(group) if getattr(run, "group", False) else each(one)
    return lambda _own, _options: Scorer(name=name, score=score)


def _reward(name: str, result: object, sample: Sample, signature: str, reveal: bool) -> Reward:
    if result is None:
        return unscored(name, "the function returned None", signature)
    if isinstance(result, Real):
        try:
            return checked(name, float(result), None, signature)
        except OverflowError:  # an int with hundreds of digits
            return unscored(name, "the function returned a number that is no float", signature)
    if not isinstance(result, Reward):
        return unscored(name, f"the function returned {type(result).__name__}, not a number", signature)
    signature = "|".join(filter(None, (signature, result.signature)))
    if result.value is None:
        return unscored(name, result.error or "no reason given", signature)
    detail = None if result.detail is None else str(result.detail)
    if detail is not None and not reveal and _tells(detail, sample.task.references):
        detail = "(withheld: it contains a reference)"
    reward = checked(name, result.value, detail, signature)
    return msgspec.structs.replace(reward, error=reward.error or result.error)


def _tells(detail: str, references: Sequence[str]) -> bool:
    """A whole-word search: the reference "1" is not in "10 words", "dog" is in "missing: dog"."""
    said = " ".join(detail.casefold().split())
    parts = (part for reference in references for part in (reference, reference.rpartition("####")[2]))
    wanted = {" ".join(part.casefold().split()) for part in parts}
    return any(re.search(rf"(?<!\w){re.escape(w)}(?!\w)", said) for w in wanted if w)
