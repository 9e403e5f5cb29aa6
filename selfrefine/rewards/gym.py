"""gym: reasoning-gym's own scorer for the task's dataset.

The task carries `meta.gym = {"dataset": NAME, "entry": {...}}`; what the entry leaves out of question, answer
and metadata is the prompt, the first reference and {}. Most of these scorers want the bare answer,
so where the entry's answer is a number the last number of the text is handed over, else the stripped text.

Trap: their common fallback gives len(oracle)/len(answer) where the oracle is a substring, meant for a right
answer in a wordy text. On a bare number it would pay "14" half a point for "4", and best-of-n would then
train on it; that credit is taken back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any, cast

from selfrefine.errors import ConfigError
from selfrefine.records import Reward, Sample, Task
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each, unscored
from selfrefine.rewards.numbers import last_number
from selfrefine.tasks.gym_import import register

GymScorer = Callable[..., float]


def make(_own: object, options: RewardOptions) -> Scorer:
    return Scorer(name="gym", score=each(_score))


def _score(sample: Sample) -> Reward:
    gym = sample.task.meta.get("gym")
    if not isinstance(gym, dict) or not isinstance(gym.get("dataset"), str):
        return unscored(
            "gym", "the task has no meta.gym.dataset; make tasks with `selfrefine tasks gym:NAME`"
        )
    entry = {**_of_task(sample.task), **given} if isinstance(given := gym.get("entry", {}), dict) else {}
    if not isinstance(entry.get("answer"), str):
        return unscored("gym", "the task has no answer: no reference, and none in meta.gym.entry")
    scorer, signature = _scorer(gym["dataset"])
    if scorer is None:
        return unscored("gym", f"reasoning-gym has no dataset {gym['dataset']!r}", signature)
    return _judge(sample.text.strip(), entry, scorer, signature)


def _of_task(task: Task) -> dict[str, Any]:
    """What every entry has and the task holds already."""
    entry: dict[str, Any] = {"question": task.prompt[-1].content if task.prompt else "", "metadata": {}}
    return entry | ({"answer": task.references[0]} if task.references else {})


def _judge(text: str, entry: dict[str, Any], scorer: GymScorer, signature: str) -> Reward:
    oracle = entry["answer"].strip().replace(",", "")
    wanted = last_number(oracle)
    number = wanted is not None and wanted.text == oracle.removeprefix("+") and wanted.value is not None
    why = ""
    if number:
        found = last_number(text)
        if found is None:
            return checked("gym", 0.0, "no number in the answer", signature)
        # What is not one number goes to the scorer whole. Were it null, answers that leave it open would pay.
        text, why = (found.text, "") if found.value is not None else (text, f": {found.why}")
    try:
        value = float(scorer(answer=text, entry=entry))
    except Exception as error:  # noqa: BLE001  outside code on model text: the row fails, not the run
        return unscored("gym", f"{type(error).__name__}: {error}", signature)
    if number and value < 1 and oracle in text:
        value = 0.0
    detail = (
        None if value >= 1 else f"the number {text} is wrong" if number and not why else f"not right{why}"
    )
    return checked("gym", value, detail, signature)


@cache
def _scorer(dataset: str) -> tuple[GymScorer | None, str]:
    try:
        register(dataset)
        from reasoning_gym.factory import get_score_answer_fn
    except ImportError as error:
        raise ConfigError(f"reward gym needs the package reasoning-gym: {error}") from None
    signature = f"reasoning-gym:{version('reasoning-gym')}|dataset:{dataset}|extract:last-number|v:2"
    try:
        return cast(GymScorer, get_score_answer_fn(dataset)), signature
    except ValueError:
        return None, signature


REWARD = RewardKind(
    name="gym",
    about="the score of the task's own reasoning-gym scorer",
    make=make,
)
