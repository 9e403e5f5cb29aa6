"""Run every recipe on the demo task with the same token budget: `make bench-recipes`.

Each (recipe, seed) is an ordinary run folder, so this can be stopped at any time: finished runs are
skipped, the running one is interrupted when the minutes are over and continued by the next call, and
RECIPES.md is written from the folders alone. First all recipes with seed 0; then the best four and the
placebo with seeds 1 and 2; then those that beat expert-iteration, at the demo's own size. The table
lists all runs; those that failed or learnt nothing have the reason.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.recipe_page import page
from benchmarks.recipe_runs import (
    CHAINED,
    ON_TEXT,
    PLACEBO,
    REFERENCE,
    SEEDS,
    Jobs,
    Plan,
    Result,
    result,
    results,
    rivals,
)
from selfrefine import recipes
from selfrefine.errors import RunFolderError

REPEATED = 4
"""So many of the best are run with all seeds."""
PAGE = Path(__file__).parent / "RECIPES.md"


Job = tuple[Plan, str, int]


def todo(plan: Plan) -> list[Job]:
    """Runs to begin or to go on with, in order. What is repeated is known once seed 0 is done everywhere, and
    what is run at the demo's own size once all of that is done."""
    first = [result(plan, name, plan.seeds[0]) for name in plan.names]
    best = repeated(first)
    waiting = [(plan, one.recipe, one.seed) for one in first if not one.finished]
    waiting = waiting or _unfinished(plan, best, plan.seeds[1:])
    if waiting:
        return waiting
    better = rivals(plan, results(plan, best))
    return _unfinished(plan.own_size(), [REFERENCE, *better], plan.seeds) if better else []


def _unfinished(plan: Plan, names: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    asked = [(plan, name, seed) for seed in seeds for name in names]
    return [job for job in asked if not result(*job).finished]


def repeated(first: Sequence[Result]) -> list[str]:
    """The best of the trained recipes by their gain with seed 0, expert-iteration and the placebo."""
    gains = {one.recipe: one.gain.mean for one in first if one.gain and one.rounds}
    known = {name: gain for name, gain in gains.items() if gain is not None and name != PLACEBO}
    # Another task's gain is another, and so is that of a policy which had learnt before.
    known = {name: gain for name, gain in known.items() if not {"@", "+"} & set(name)}
    best = sorted(known, key=lambda name: (-known[name], name))
    also = [one.recipe for one in first if one.recipe in (PLACEBO, REFERENCE)]
    return list(dict.fromkeys(best[:REPEATED] + sorted(also)))


def go(plan: Jobs, recipe: str, seed: int, left_s: float) -> bool:
    """Run, or go on with, one of them; False when the time was over first."""
    path = plan.path(recipe, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    log, failed = path.with_name(f"{path.name}.log"), path.with_name(f"{path.name}.failed")
    try:
        command = [sys.executable, "-m", "selfrefine", *plan.command(recipe, seed)]
    except RunFolderError as error:
        failed.write_text(f"not started: {error}\n")
        return True
    with log.open("ab") as out:
        # A session of its own: Ctrl-C here would reach it twice, and twice means at once.
        child = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = child.wait(timeout=max(1.0, left_s))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as over:
            child.send_signal(signal.SIGINT)  # it commits its batch, and the next call goes on there
            child.wait()
            if isinstance(over, KeyboardInterrupt):
                raise
            return False
    if code < 0 or code in (130, 143):  # killed, perhaps for want of memory: the next call goes on there
        return False
    if code not in (0, 8):  # 8: nothing to learn, which is a result, and measured
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        reason = f"failed with exit code {code}: {said[-1].removeprefix('error: ') if said else 'no message'}"
        failed.write_text(reason + "\n")
    return True


def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    plan = Plan(
        folder=flags.folder,
        config=flags.config,
        model=flags.model,
        budget=flags.budget,
        only=tuple(flags.only or ()),
        sets=tuple(flags.set or ()),
        seeds=tuple(range(flags.seeds)),
    )
    end = time.monotonic() + flags.minutes * 60
    given = flags_that_matter(flags)
    command = f"make bench-recipes{' with ' + ' '.join(given) if given else ''}"
    while (left := end - time.monotonic()) > 0 and (waiting := todo(plan)):
        recipe, seed = waiting[0][1:]
        print(f"{recipe}, seed {seed}: {left / 60:.0f} minutes left", file=sys.stderr, flush=True)
        in_time = go(*waiting[0], left)
        flags.output.write_text(page(plan, command), encoding="utf-8")
        if not in_time:
            break
    flags.output.write_text(page(plan, command), encoding="utf-8")
    rest = len(todo(plan))
    words = "run left" if rest == 1 else "runs left"
    print(f"{flags.output} written; {rest} {words}" + (": call again" if rest else ""), file=sys.stderr)
    return 0


def flags_that_matter(flags: argparse.Namespace) -> list[str]:
    """What was asked otherwise than by default, as far as it decides a figure: the page says it."""
    usual = _parser()
    names = ("config", "model", "budget", "only", "seeds", "set")
    return [f"{name}={value}" for name in names if (value := getattr(flags, name)) != usual.get_default(name)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=50, help="interrupt after this many minutes (default: 50)"
    )
    parser.add_argument("--budget", type=int, default=100_000, help="tokens per run, sampled and trained")
    parser.add_argument(
        "--only", action="append", choices=[*recipes.names(), ON_TEXT, *CHAINED], help="repeatable"
    )
    parser.add_argument("--config", default="demo", help="the task: a configuration file or a shipped one")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of the best recipes and the placebo")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="for all runs; repeatable")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-recipes"), help="of the run folders")
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    return parser


if __name__ == "__main__":
    sys.exit(main())
