"""`python -m benchmarks`: all of `make bench`, or the parts named with --only."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BENCHMARKS: dict[str, str] = {
    "sample-fixed": "benchmarks.rows:sample_fixed",
    "sample-stopping": "benchmarks.rows:sample_stopping",
    "train-1": "benchmarks.rows:train_one",
    "train-8": "benchmarks.rows:train_eight",
    "memory": "benchmarks.memory:peak_memory",
    "sampling-load": "benchmarks.load:sampling_load",
    "training-load": "benchmarks.load:training_load",
    "profile": "benchmarks.profile:profiles",
    "sharing": "benchmarks.sharing:shared_against_plain",
    "round": "benchmarks.round:grpo_round",
}
APART = ("sharing", "round")
"""Run only when named: a peer that alone takes minutes, rows of thousands of tokens."""


def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    # Before torch is imported: OpenMP reads it once.
    os.environ["OMP_NUM_THREADS"] = str(flags.threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    from benchmarks import machine, results
    from benchmarks.context import Benchmark, Context

    torch.set_num_threads(flags.threads)
    names = flags.only or [name for name in BENCHMARKS if name not in APART]
    context = Context(
        model=flags.model,
        threads=flags.threads,
        quick=flags.quick,
        search=flags.search,
        minutes=flags.minutes,
    )
    described = machine.describe(flags.threads)
    found = None if flags.quick else results.read(results.JSON)
    begun = time.perf_counter()
    for at, name in enumerate(names, 1):
        module, _, function = BENCHMARKS[name].partition(":")
        benchmark: Benchmark = getattr(importlib.import_module(module), function)
        context.begin(name)
        context.say(f"{at} of {len(names)}, {time.perf_counter() - begun:.0f} s so far")
        if context.out_of_time:
            context.say(f"not run: {flags.minutes:g} minutes are over; use --only to run it")
            found = results.without(found, name)
            continue
        section = benchmark(context)
        found = results.merged(found, described, flags.model, [section])
        if not flags.quick:  # after each: an interrupted run keeps what it has
            results.write(found)
    sections = [section for section in found.sections if section.name in names] if found else []
    shown = results.merged(None, described, flags.model, sections)
    print(results.markdown(shown))
    if flags.output:
        flags.output.write_text(results.markdown(shown), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=sorted(BENCHMARKS), help="run this part; may be repeated"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny jobs, to check that it runs; RESULTS.md is not changed"
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="try all batch sizes of the peers first; takes minutes longer (see --minutes)",
    )
    parser.add_argument(
        "--model", default="smollm2", help="embedded model, folder or hub id in the local cache"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (default: 2)")
    parser.add_argument(
        "--minutes", type=float, default=14.0, help="start no part after this many minutes (default: 14)"
    )
    parser.add_argument("-o", "--output", type=Path, help="also write the final page to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
