"""Sums with their working: a reasoning-gym task whose steps a program can check one by one.

    python -m benchmarks.worked sums.jsonl -n 900 --seed 0
    python -m benchmarks.worked shown.jsonl -n 400 --skip 900 --answers
    selfrefine critique in.jsonl --critique-source benchmarks/worked.py:check

The sums are `gym:chain_sum`'s, asked for with each step; a reference is the working, left to right, so its
last number is the answer. With --answers the references are written as right answers, for a policy that is
to begin with the form (`finetune`). `check` is a calculator: it reads what an answer says and does each step
again.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from selfrefine import records
from selfrefine.records import Message, Reward, Sample, Task
from selfrefine.tasks import TaskOptions, load

SETTINGS = {"min_digits": 1, "max_digits": 1}
TERMS = 4
_GIVEN = re.compile(r"problem: ([^=]+) =")
_ASKED = re.compile(r"What is ([^?]+)\?")
_TERM = re.compile(r"([+-]?) ?(\d+)")
_STEP = re.compile(r"(-?\d+) ?([+-]) ?(\d+) ?= ?(-?\d+)")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worked", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("-n", type=int, default=900)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many")
    parser.add_argument("--terms", type=int, default=TERMS)
    parser.add_argument("--answers", action="store_true", help="scored answers instead of tasks")
    flags = parser.parse_args(argv)
    settings = {**SETTINGS, "min_terms": flags.terms, "max_terms": flags.terms}
    options = TaskOptions(n=2 * (flags.skip + flags.n), seed=flags.seed, settings=settings)
    every = {task.prompt: task for task in map(worked, load("gym:chain_sum", options))}
    tasks = list(every.values())[flags.skip : flags.skip + flags.n]
    rows = [_answered(task) for task in tasks] if flags.answers else tasks
    flags.output.write_bytes(b"".join(records.encode(row) + b"\n" for row in rows))
    return 0


def worked(task: Task) -> Task:
    """The same sum, with its steps asked for and shown."""
    found = _GIVEN.search(task.prompt[-1].content)
    assert found is not None, "chain_sum asks in other words"
    question = f"What is {found[1]}? Write each step, from left to right."
    steps = [f"{a} {sign} {b} = {result}" for a, sign, b, result in right_steps(question)]
    prompt = (*task.prompt[:-1], Message(role="user", content=question))
    return replace(task, prompt=prompt, references=("; ".join(steps),), meta={})


def _answered(task: Task) -> Sample:
    return Sample(id=f"{task.id}.r0.s0", task=task, text=task.references[0], reward=1.0)


def right_steps(question: str) -> list[tuple[int, str, int, int]]:
    """(a, sign, b, a sign b) of each step. Raises: ValueError for another task."""
    asked = _ASKED.search(question)
    if asked is None:
        raise ValueError("the prompt does not ask for a sum")
    terms = [(sign or "+", int(number)) for sign, number in _TERM.findall(asked[1])]
    steps, so_far = [], terms[0][1]
    for sign, number in terms[1:]:
        after = so_far + number if sign == "+" else so_far - number
        steps.append((so_far, sign, number, after))
        so_far = after
    return steps


def check(sample: Sample) -> Reward:
    """1 where every step is right, else 0 with the first that is wrong or missing, and where that stands.

    The right result of a step is never told, only what is to be computed.
    """
    fault = _fault(sample)
    if fault is None:
        return Reward(name="steps", value=1.0)
    return Reward(name="steps", value=0.0, detail=fault[0], keep=fault[1])


def check_again(sample: Sample) -> Reward:
    """The control: as `check`, but with nothing to keep, so that a whole new answer is asked for."""
    found = check(sample)
    return found if found.value else replace(found, keep=0)


def _fault(sample: Sample) -> tuple[str, int] | None:
    """What is wrong, and how many characters stand before it."""
    wanted, text = right_steps(sample.task.prompt[-1].content), sample.text
    found = list(_STEP.finditer(text))
    for k, (a, sign, b, result) in enumerate(wanted):
        if k == len(found):
            return f"step {k + 1} is missing: {a} {sign} {b}", found[k - 1].end() if k else 0
        step = found[k]
        if (int(step[1]), step[2], int(step[3])) != (a, sign, b):
            return f"step {k + 1} must be {a} {sign} {b}", step.start()
        if int(step[4]) != result:
            return f"step {k + 1} is wrong: {a} {sign} {b} is not {int(step[4])}", step.start(4)
    if len(found) > len(wanted):
        return f"there must be {len(wanted)} steps", found[len(wanted) - 1].end()
    return None


if __name__ == "__main__":
    sys.exit(main())
