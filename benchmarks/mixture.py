"""The mixture of the reflection benchmark: five generated tasks, some easy for the small model, some hard.

    python -m benchmarks.mixture -o mixture.jsonl

The same seed gives the same file. Each task is tagged with its dataset; its tag `difficulty` has the dataset
in front, because splits are stratified by it and so hold all datasets in proportion.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from selfrefine.records import Task, encode
from selfrefine.tasks import TaskOptions, load
from selfrefine.tasks.splits import dedupe


class Part(Struct, frozen=True, kw_only=True):
    """One dataset of reasoning-gym. `right`: the share of the starting model's answers that were right when
    the parts were chosen: 30 answers at temperature 0.8 to 10 tasks of seed 5 (sums of one digit)."""

    dataset: str
    settings: dict[str, Any]
    n: int
    right: float


PARTS = (
    Part(
        dataset="chain_sum",
        settings={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
        n=320,
        right=0.13,
    ),
    Part(dataset="products", settings={"min_digits": 1, "max_digits": 1}, n=400, right=0.27),
    Part(
        dataset="gcd",
        settings={"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": 20},
        n=320,
        right=0.17,
    ),
    Part(dataset="number_sequence", settings={"max_terms": 5}, n=160, right=0.20),
    Part(dataset="simple_equations", settings={"max_terms": 2, "max_value": 9}, n=160, right=0.07),
)
"""`n` counts rows; some settings have fewer distinct tasks."""


def tasks(seed: int = 0) -> Iterator[Task]:
    """All tasks, dataset after dataset; no prompt twice."""
    for part in PARTS:
        options = TaskOptions(n=part.n, seed=seed, settings=part.settings)
        for task in dedupe(load(f"gym:{part.dataset}", options))[0]:
            difficulty = f"{part.dataset} {task.tags.get('difficulty', '')}".strip()
            yield replace(task, tags={**task.tags, "dataset": part.dataset, "difficulty": difficulty})


def write(path: Path, seed: int = 0) -> int:
    """The mixture as a file; returns how many tasks it has."""
    rows = [encode(task) + b"\n" for task in tasks(seed)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(rows))
    return len(rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixture", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(argv)
    print(f"{flags.output}: {write(flags.output, flags.seed):,} tasks", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
