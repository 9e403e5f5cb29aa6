"""Tasks in which exactly one slice is broken, as rows that a run would have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from selfrefine.records import Message, Reward, Sample, Task
from selfrefine.seeds import derive, generator


def task(key: str, prompt: str, reference: str = "", **tags: str) -> Task:
    references = (reference,) if reference else ()
    return Task(id=key, prompt=(Message(role="user", content=prompt),), references=references, tags=tags)


def answer(of: Task, reward: float | None, text: str = "so it is", index: int = 0, **more: object) -> Sample:
    own = Reward(name="exact", value=reward, error=None if reward is not None else "not one number")
    fields = {"rewards": (own,), "reward": reward} | more
    return Sample(id=f"{of.id}.r1.s{index}", task=of, index=index, text=text, **fields)  # type: ignore[arg-type]


def sums(n: int, seed: int = 0, signs: Sequence[str] = "+-") -> list[Task]:
    """Sums of two numbers of one or two digits, in the demo's words."""
    rng = generator(derive(seed, "sums"))
    found = []
    for i in range(n):
        a, b = (int(rng.integers(10)) if rng.random() < 0.3 else int(rng.integers(10, 100)) for _ in "ab")
        sign = signs[int(rng.integers(len(signs)))]
        asked = f"State the final answer to the following arithmetic problem: {a} {sign} {b} =."
        right = str(a + b if sign == "+" else a - b)
        found.append(task(f"t{i:04d}", f"{asked} Answer with just the number.", right))
    return found


def answered(
    tasks: Sequence[Task],
    broken: Callable[[Task], bool],
    seed: int = 0,
    rates: tuple[float, float] = (0.1, 0.8),
    n: int = 1,
) -> list[Sample]:
    """Answers that are right at the first rate where a task is broken, and at the second elsewhere."""
    rng = generator(derive(seed, "answered"))
    return [
        answer(one, float(rng.random() < rates[not broken(one)]), index=k) for one in tasks for k in range(n)
    ]
