"""Plan on against plan off: `make bench-plan`.

Each run is an ordinary run folder, so this can be stopped at any time: finished runs are skipped, the running
one is interrupted when the minutes are over and continued by the next call. REFLECTION.md keeps what people
wrote in it; only what stands between its markers is made from the folders.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import mixture
from benchmarks.recipes import go
from benchmarks.reflection_page import page
from benchmarks.reflection_runs import SEEDS, Runs, found

PAGE = Path(__file__).parent / "REFLECTION.md"
MODEL = "smollm2"


def todo(runs: Runs) -> list[tuple[str, int]]:
    """Runs to begin or to go on with, in order."""
    return [job for job in runs.jobs if not found(runs, *job).finished]


def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    tasks = flags.tasks or flags.folder / "mixture.jsonl"
    if not tasks.is_file():
        mixture.write(tasks)
    runs = Runs(
        folder=flags.folder,
        tasks=tasks,
        budget=flags.budget,
        model=flags.model,
        seeds=tuple(flags.seed or SEEDS),
        demo_seeds=tuple(flags.demo or ()),
        sets=tuple(flags.set or ()),
    )
    end = time.monotonic() + flags.minutes * 60
    while (left := end - time.monotonic()) > 0 and (waiting := todo(runs)):
        name, seed = waiting[0]
        print(f"{name}, seed {seed}: {left / 60:.0f} minutes left", file=sys.stderr, flush=True)
        if not go(runs, name, seed, left):
            break
    old = flags.output.read_text(encoding="utf-8") if flags.output.is_file() else ""
    flags.output.write_text(page(runs, old), encoding="utf-8")
    rest = len(todo(runs))
    words = "run left" if rest == 1 else "runs left"
    print(f"{flags.output} written; {rest} {words}" + (": call again" if rest else ""), file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reflection", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=50, help="interrupt after this many minutes (default: 50)"
    )
    parser.add_argument("--budget", type=int, default=20_000, help="tokens per run, sampled and trained")
    parser.add_argument("--tasks", type=Path, help="another file of tasks with a tag `dataset`")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--seed", type=int, action="append", help="of the mixture; repeatable (0, 1, 2)")
    parser.add_argument("--demo", type=int, action="append", metavar="SEED", help="the demo too; repeatable")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="for all runs; repeatable")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-plan"), help="of the run folders")
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    return parser


if __name__ == "__main__":
    sys.exit(main())
