"""Answering with a verifier: accuracy against tokens. CRITIQUE.md, between its markers.

    python -m benchmarks.best_of --label base
    python -m benchmarks.best_of --label judge --adapter runs/judge/adapter --seed 0

Each call samples one policy's answers (an arm) and writes the page from all arms in the folder. The tasks are
the test tasks of a configuration: with the seed of the run that made an adapter, tasks that it has not seen.
An interrupted call goes on where it was; --page samples nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.best_of_page import page
from benchmarks.best_of_rows import SAMPLES, About, make, read
from selfrefine.cli.common import resolved
from selfrefine.config import Config
from selfrefine.engines.load import load_engine
from selfrefine.errors import SelfrefineError
from selfrefine.records import Task
from selfrefine.stages.prepare import make_splits
from selfrefine.steps.scoring import measuring_specs
from selfrefine.tasks import load
from selfrefine.tasks.base import TaskOptions

PAGE = Path(__file__).parent / "CRITIQUE.md"


def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    try:
        config = configuration(flags)
        if not flags.page:
            _sample(flags, config)
        folders = sorted(path.parent for path in flags.folder.glob("*/about.json"))
        # The bare model first: the others are compared with it.
        arms = sorted(
            (read(folder) for folder in folders), key=lambda arm: (bool(arm.about.adapter), arm.label)
        )
    except SelfrefineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    old = flags.output.read_text(encoding="utf-8") if flags.output.is_file() else ""
    flags.output.write_text(page(arms, config.reward.settings, old), encoding="utf-8")
    print(f"{flags.output} written, of {', '.join(arm.label for arm in arms)}", file=sys.stderr)
    return 0


def configuration(flags: argparse.Namespace) -> Config:
    """That of --config, with what the flags say. Raises: ConfigError."""
    given = {"model": flags.model, "seed": flags.seed, "generate.n": SAMPLES}
    given |= {"adapter": str(flags.adapter)} if flags.adapter else {}
    given |= {"generate.temperature": flags.temperature} if flags.temperature is not None else {}
    return resolved(flags.config, flags.set, given).config


def tasks_of(flags: argparse.Namespace, config: Config) -> list[Task]:
    """The first --tasks test tasks, or tasks of --file. Raises: ConfigError, DataError."""
    found = list(load(str(flags.file), TaskOptions())) if flags.file else make_splits(config)["test"]
    return found[: flags.tasks]


def _sample(flags: argparse.Namespace, config: Config) -> None:
    tasks = tasks_of(flags, config)
    engine = load_engine(config.model, flags.adapter)
    about = About(
        model=config.model,
        adapter=str(flags.adapter or ""),
        policy=engine.policy,
        engine=engine.signature,
        source=f"`{flags.file.name if flags.file else f'--config {flags.config}'}`",
        seed=config.seed,
        temperature=config.generate.temperature,
        max_new_tokens=config.generate.max_new_tokens,
        measure=tuple(measuring_specs(config)),
    )

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    make(flags.folder / flags.label, tasks, engine, config, about, say)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.best_of",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--label", default="base", help="name of this policy's answers (default: base)")
    parser.add_argument("--adapter", type=Path, help="a LoRA adapter on the model")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--config", default="demo", help="tasks, lengths and measure (default: demo)")
    parser.add_argument("--file", type=Path, help="a file of tasks instead, such as runs/R/tasks/test.jsonl")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of all samples (default: 0)")
    parser.add_argument("--tasks", type=int, default=400, help="how many tasks at most (default: 400)")
    parser.add_argument("--temperature", type=float, help="of the samples (default: the configuration's)")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="repeatable")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-best-of"), help="of the answers")
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    return parser


if __name__ == "__main__":
    sys.exit(main())
