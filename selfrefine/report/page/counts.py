"""What a round's answers come to, counted row by row: memory grows with tasks, not with rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from selfrefine.errors import DataError
from selfrefine.query.rows import length
from selfrefine.records import why_undecodable
from selfrefine.runfolder.jsonl import lines
from selfrefine.steps.critique_outcome import is_right

LEVELS = ("0", "0–0.25", "0.25–0.5", "0.5–0.75", "0.75–1", "1", "no score")
"""Rewards as the page groups them: both ends stand alone, since many rewards give nothing else."""


class TaskOf(Struct, frozen=True, gc=False):
    id: str


class Row(Struct, frozen=True, gc=False):
    """The part of a row that is counted; the rest is skipped unread."""

    id: str
    task: TaskOf
    parent_id: str | None = None
    text: str = ""
    finish_reason: str = "stop"
    reward: float | None = None
    token_ids: Raw = Raw(b"[]")
    counted_tokens: int = 0

    @property
    def tokens(self) -> int:
        return length(self.token_ids) or self.counted_tokens


_decode = msgspec.json.Decoder(Row).decode


def rows(path: Path) -> Iterator[Row]:
    """Raises: DataError, naming the line that cannot be read."""
    with path.open("rb") as stream:
        for where, line in lines(stream, f"{path.parent.name}/{path.name}"):
            try:
                yield _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise DataError(f"{where}: {why_undecodable(line, error)}") from None


def level(reward: float | None) -> int:
    """The place in LEVELS: 0 and 1 have their own, a value on a border belongs to the group above."""
    if reward is None:
        return 6
    if is_right(reward):
        return 5
    return 0 if reward <= 0 else 1 + int(reward * 4)


def length_bin(tokens: int) -> int:
    """Lengths by doubling: 0, 1, 2, 3–4, 5–8, 9–16, … tokens are bins 0, 1, 2, 3, 4, 5, …"""
    return 0 if tokens <= 0 else (tokens - 1).bit_length() + 1


def bin_name(index: int) -> str:
    """Bin 4 is "5–8"."""
    if index < 3:
        return str(index)
    return f"{2 ** (index - 2) + 1}–{2 ** (index - 1)}"


class Answers:
    """A round's first answers to its training tasks (revisions are left out), as `add` has seen them."""

    def __init__(self) -> None:
        self.answers = self.truncated = self.empty = self.failed = 0
        self.levels = [0] * len(LEVELS)
        self.lengths: dict[int, list[float]] = {}
        """Bin to [scored answers, sum of their rewards]."""
        self.tasks: dict[str, list[int]] = {}
        """Task to [scored answers, right ones]."""
        self._texts: dict[str, set[int]] = {}
        self._given: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        self.answers += 1
        if row.finish_reason == "error":
            self.failed += 1
        else:
            self.truncated += row.finish_reason == "length"
            self.empty += not row.text.strip()
            self._texts.setdefault(row.task.id, set()).add(hash(row.text.strip()))
            self._given[row.task.id] += 1
        self.levels[level(row.reward)] += 1
        task = self.tasks.setdefault(row.task.id, [0, 0])
        if row.reward is not None:
            task[0] += 1
            task[1] += is_right(row.reward)
            sums = self.lengths.setdefault(length_bin(row.tokens), [0, 0.0])
            sums[0] += 1
            sums[1] += row.reward

    @property
    def distinct(self) -> float | None:
        """Distinct answers per task, of the tasks that were answered."""
        return sum(map(len, self._texts.values())) / len(self._texts) if self._texts else None

    @property
    def per_task(self) -> float | None:
        """Answers per task, of the same tasks."""
        return sum(self._given.values()) / len(self._given) if self._given else None

    @property
    def learnability(self) -> dict[str, int]:
        """Tasks by how many of their scored answers were right."""
        found = {"never right": 0, "sometimes right": 0, "always right": 0}
        for n, right in self.tasks.values():
            if n:
                found[
                    "never right" if not right else "always right" if right == n else "sometimes right"
                ] += 1
        return found

    def pass_at(self, k: int) -> list[float]:
        """Of each task with at least k scored answers, the chance that k of them hold a right one."""
        return [pass_at_k(n, right, k) for n, right in self.tasks.values() if n >= k]

    def most_samples(self) -> int:
        return max((n for n, _ in self.tasks.values()), default=0)


def pass_at_k(n: int, right: int, k: int) -> float:
    """1 - C(n - right, k) / C(n, k): unbiased, unlike 1 - (1 - right / n)^k, which is too small.

    n samples of one task, `right` of them right, 1 <= k <= n.
    Source: Chen et al. 2021, "Evaluating large language models trained on code", equation 1.
    """
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


class Steps(Struct, frozen=True, kw_only=True):
    """A stretch of optimizer steps, each figure the mean over it."""

    step: float
    loss: float | None
    lr: float | None
    grad_norm: float | None


class _Step(Struct, frozen=True):
    loss: float | None = None
    lr: float | None = None
    grad_norm: float | None = None


_decode_step = msgspec.json.Decoder(_Step).decode


def training_log(path: Path, most: int = 150) -> list[Steps]:
    """A round's train.jsonl in at most `most` stretches of as many steps. Raises: DataError."""
    steps: list[_Step] = []
    with path.open("rb") as stream:
        for where, line in lines(stream, f"{path.parent.name}/{path.name}"):
            try:
                steps.append(_decode_step(line))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise DataError(f"{where}: {error}") from None
    width = max(1, math.ceil(len(steps) / most))
    return [
        Steps(
            step=at + (1 + min(width, len(steps) - at)) / 2,
            **{
                name: _mean([getattr(s, name) for s in steps[at : at + width]])
                for name in ("loss", "lr", "grad_norm")
            },
        )
        for at in range(0, len(steps), width)
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
