"""New tasks, written by the policy: what it is asked, what is read from what it wrote, what a task is worth.

A row is one text that was to become a task. Its column `proposes` holds the task that was read; `refused`
says why there is none. What is already a training task, a held-out one or an earlier proposal is none.

Source: Zhao et al. 2025, "Absolute Zero: Reinforced Self-play Reasoning with Zero Data", arXiv:2505.03335.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import replace

from selfrefine.prompts import Template
from selfrefine.records import Lesson, Message, Reward, Sample, Task, prompt_key
from selfrefine.rewards.base import unscored
from selfrefine.seeds import derive, generator
from selfrefine.sums import Sums
from selfrefine.tasks.base import content_id
from selfrefine.tasks.families import Family

PROPOSES, REFUSED = "proposes", "refused"
"""Columns of a row."""
PASS_RATE, LEARNABILITY = "pass-rate", "learnability"
"""Rewards of a row whose task was answered."""
PROPOSED = "proposed"
"""In the `meta` of a task that was written: the id of the row it was read from."""


class Proposed(Sums, frozen=True, kw_only=True):
    """What became of the texts. `held_out`: tasks of gate or test; `given`: of train; `again`: earlier."""

    proposals: int = 0
    new: int = 0
    unreadable: int = 0
    given: int = 0
    held_out: int = 0
    again: int = 0
    errors: int = 0
    truncated: int = 0
    tokens: int = 0
    why: dict[str, int] = {}
    """Of the unreadable ones."""


def requests(
    family: Family, template: Template, n: int, examples: int, run_seed: int, round_index: int
) -> tuple[list[Task], dict[str, Task]]:
    """What the policy is asked, `n` times, each with other examples; and by the id of such a request the
    given task in whose words its task will be asked. Raises: ConfigError (the template)."""
    asked, like = [], {}
    for i in range(n):
        rng = generator(derive(run_seed, "propose", round_index, i))
        drawn = rng.choice(len(family.given), min(examples, len(family.given)), replace=False).tolist()
        shown = [family.given[j] for j in drawn]
        prompt = _request(family, template, [family.show(task) for task in shown])
        one = Task(id=f"propose-{i:04d}", prompt=prompt)
        asked.append(one)
        like[one.id] = shown[0]
    return asked, like


def _request(family: Family, template: Template, examples: Sequence[str]) -> tuple[Message, ...]:
    """The template with the examples, or, where it does not use them, asked and answered with each before.

    A small model writes on where others answered; from a list in one message it hardly ever writes a task.
    """
    listed = "examples" in template.uses
    given = {"examples": "\n".join(examples)} if listed else {}
    ask = Message(role="user", content=template.render(about=family.kind.about, **given))
    if listed:
        return (ask,)
    turns = [message for text in examples for message in (ask, Message(role="assistant", content=text))]
    return (*turns, ask)


class Known:
    """The tasks that are there already, by their prompt and by what the family shows of them: the same sum
    in other words is the same task."""

    def __init__(self, family: Family, splits: Mapping[str, Sequence[Task]]) -> None:
        self.family = family
        self.where: dict[str, str] = {}
        # A held-out task counts as one, whatever else it is: written last.
        for name in ("train", "gate", "test"):
            kept = "given" if name == "train" else "held_out"
            for task in splits.get(name, ()):
                self.where |= dict.fromkeys(self._keys(task), kept)

    def add(self, task: Task) -> str:
        """ "" for a new task, which is known from now on; else which it is."""
        keys = self._keys(task)
        found = next((self.where[key] for key in keys if key in self.where), "")
        if not found:
            self.where |= dict.fromkeys(keys, "again")
        return found

    def _keys(self, task: Task) -> list[str]:
        shown = self.family.show(task)
        return [f"prompt {prompt_key(task.prompt)}", *([f"shown {shown.casefold()}"] if shown else [])]


def read(rows: Sequence[Sample], known: Known, like: Mapping[str, Task]) -> tuple[list[Sample], Proposed]:
    """The rows with what was read of each, and what became of them. Raises: ConfigError (the family)."""
    made, total = [], Proposed()
    for row in rows:
        if row.finish_reason == "error":
            made.append(_refused(row, "errors"))
            total += Proposed(proposals=1, errors=1)
            continue
        part = Proposed(proposals=1, tokens=row.sampled_tokens, truncated=row.finish_reason == "length")
        found = known.family.read(row.text, like[row.task.id])
        if isinstance(found, str):
            made.append(_refused(row, found))
            total += replace(part, unreadable=1, why={found: 1})
        elif why := known.add(found):
            made.append(_refused(row, why))
            total += replace(part, **{why: 1})
        else:
            task = replace(found, id=content_id(found), meta={**found.meta, PROPOSED: row.id})
            made.append(replace(row, extra={PROPOSES: Raw(msgspec.json.encode(task))}))
            total += replace(part, new=1)
    return made, total


def _refused(row: Sample, why: str) -> Sample:
    return replace(row, extra={REFUSED: Raw(msgspec.json.encode(why))})


def task_of(row: Sample) -> Task | None:
    """The task that was read from a row."""
    raw = None if row.extra is UNSET else row.extra.get(PROPOSES)
    return None if raw is None else msgspec.json.decode(raw, type=Task)


def tasks_of(rows: Iterable[Sample]) -> list[Task]:
    """Those of all rows that have one, in order."""
    return [task for row in rows if (task := task_of(row)) is not None]


def learnability(rate: float) -> float:
    """What a task is worth to the one that learns from it, by the share of its answers that are right.

    1 - rate, and 0 where that is 0 or 1: what is never solved and what always is teaches nothing. Source:
    Zhao et al. 2025, arXiv:2505.03335, equation 4 (r_propose).
    """
    return 1.0 - rate if 0.0 < rate < 1.0 else 0.0


def rated(rows: Sequence[Sample], answers: Iterable[Sample], mark: float) -> list[Sample]:
    """The rows whose task was answered, with its learnability as their reward: null where no answer has one.

    An answer is right from the reward `mark` on. Revisions do not count: they had help.
    """
    marks: dict[str, list[bool | None]] = {}
    for answer in answers:
        source = answer.task.meta.get(PROPOSED)
        if isinstance(source, str) and answer.parent_id is None:
            right = None if answer.reward is None else answer.reward >= mark
            marks.setdefault(source, []).append(right)
    return [_rated(row, marks[row.id]) for row in rows if row.id in marks and task_of(row) is not None]


def _rated(row: Sample, found: Sequence[bool | None]) -> Sample:
    scored = [one for one in found if one is not None]
    if not scored:
        why = "no answer to this task has a reward"
        return replace(row, rewards=(unscored(PASS_RATE, why), unscored(LEARNABILITY, why)))
    rate = sum(scored) / len(scored)
    value, detail = learnability(rate), f"{sum(scored)} of {len(scored)} answers are right"
    rewards = (
        Reward(name=PASS_RATE, value=rate, detail=detail),
        Reward(name=LEARNABILITY, value=value),
    )
    return replace(row, reward=value, rewards=rewards)


def pass_rate(row: Sample) -> float | None:
    """The share of right answers to the task of a rated row."""
    return next((one.value for one in row.rewards if one.name == PASS_RATE), None)


def turns(rated: Iterable[Sample]) -> list[Sample]:
    """The rows that are learnt from, under the prompt that asked for a task: those with a reward above 0
    that came to their end."""
    return [
        replace(row, lesson=Lesson(teaches="proposal"))
        for row in rated
        if row.reward and row.finish_reason == "stop"
    ]
