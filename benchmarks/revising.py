"""Does revising pay? python -m benchmarks.revising

Each run is an ordinary run folder, so this can be stopped at any time: finished runs are skipped, the running
one is interrupted when the minutes are over and continued by the next call. CRITIQUE.md keeps what people
wrote in it; only what stands between its markers is made from the folders.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.recipes import go
from benchmarks.revising_page import page
from benchmarks.revising_runs import SEEDS, TASKS, VARIANTS, Runs

PAGE = Path(__file__).parent / "CRITIQUE.md"


def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    runs = Runs(
        folder=flags.folder,
        tasks=tuple(flags.task or TASKS),
        variants=tuple(flags.variant or VARIANTS),
        seeds=tuple(flags.seed or SEEDS),
        model=flags.model,
    )
    runs.write_tasks()
    end = time.monotonic() + flags.minutes * 60
    while (left := end - time.monotonic()) > 0 and (waiting := todo(runs)):
        name, seed = waiting[0]
        print(f"{name}, seed {seed}: {left / 60:.0f} minutes left", file=sys.stderr, flush=True)
        if not go(runs, name, seed, left):
            break
    old = flags.output.read_text(encoding="utf-8") if flags.output.is_file() else ""
    # Of all runs that are there, whatever this call was asked for.
    flags.output.write_text(page(Runs(folder=flags.folder, model=flags.model), old), encoding="utf-8")
    rest = len(todo(runs))
    print(f"{flags.output} written; {rest} left" + (": call again" if rest else ""), file=sys.stderr)
    return 0


def todo(runs: Runs) -> list[tuple[str, int]]:
    """Runs to begin or to go on with, in order."""
    return [job for job in runs.jobs if not runs.is_done(*job)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.revising", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=50, help="interrupt after this many minutes (default: 50; 0: none)"
    )
    parser.add_argument("--task", action="append", choices=list(TASKS), help="repeatable (all)")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="repeatable (all)")
    parser.add_argument("--seed", type=int, action="append", help="repeatable (10, 11, 12)")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-revise"), help="of the run folders")
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    return parser


if __name__ == "__main__":
    sys.exit(main())
