"""Finished runs against each other: paired by test task, never by two separate intervals.

A test task counts for a pair of runs where it is a test task of both: runs of other seeds are split
otherwise, and what one of them was tested on the other may have learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from selfrefine.config import Config
from selfrefine.errors import ConfigError, DataError, RunFolderError
from selfrefine.gating.comparison import compared
from selfrefine.layers import stored
from selfrefine.records import Sample, prompt_key
from selfrefine.rewards import REWARDS
from selfrefine.rewards.base import Scorer
from selfrefine.runfolder.run import Run
from selfrefine.stats import Comparison
from selfrefine.steps.reward import parse_spec
from selfrefine.steps.scoring import build_rewards


class Versus(Struct, frozen=True, kw_only=True):
    """`run` at its end against `against`: "start", or another run at its end."""

    run: str
    against: str
    found: Comparison
    """before is `against`; the p-value is two-sided."""
    unshared: int = 0
    """Test tasks of one of the two only, not compared."""


class Versuses(Struct, frozen=True, kw_only=True):
    """What `selfrefine compare` shows."""

    measure: tuple[str, ...]
    gains: list[Versus]
    """Every run against its own start."""
    pairs: list[Versus]
    """Every other run against the first."""


def versus(runs: Sequence[Run]) -> Versuses:
    """Raises: RunFolderError (a run without its final measurement), DataError (measured otherwise, or no test
    task in common)."""
    configs = [stored(run.manifest.config) for run in runs]
    wanted = [config.evaluate.measure or config.reward.use for config in configs]
    names = _names(runs)
    for name, measure in zip(names, wanted, strict=True):
        if measure != wanted[0]:
            raise DataError(
                f"{name} was measured by {', '.join(measure)}, {names[0]} by {', '.join(wanted[0])}: "
                "their figures cannot be compared"
            )
    for name, config in zip(names, configs, strict=True):
        ours, first = _answered_and_scored(config, wanted[0]), _answered_and_scored(configs[0], wanted[0])
        if other := [key for key in first if ours[key] != first[key]]:
            raise DataError(
                f"{name} and {names[0]} were measured with different {other[0]}: "
                "their figures cannot be compared"
            )
    corpus = len(wanted[0]) == 1 and _has_corpus_figure(wanted[0][0])
    measures = build_rewards(configs[0], wanted[0], None) if corpus else ()
    ends = [_ended(run) for run in runs]
    starts = [list(run.round(0).samples("test")) for run in runs]
    gains = [
        _pair(name, "start", end, start, measures)
        for name, start, end in zip(names, starts, ends, strict=True)
    ]
    pairs = [
        _pair(name, names[0], end, ends[0], measures) for name, end in zip(names[1:], ends[1:], strict=True)
    ]
    return Versuses(measure=wanted[0], gains=gains, pairs=pairs)


def _has_corpus_figure(spec: str) -> bool:
    """No, where the plugin or file of a finished run is gone: its rows have their scores all the same."""
    try:
        return REWARDS.get(parse_spec(spec).name).corpus
    except ConfigError:
        return False


def _answered_and_scored(config: Config, measure: Sequence[str]) -> dict[str, Any]:
    """What a test figure depends on besides the policy and the measure's name."""
    names = {parse_spec(text).name for text in measure}
    answered = config.evaluate.sampled(config.generate)
    return {
        "evaluate.n": answered.n,
        "evaluate.best_of": answered.best_of,
        "evaluate.by": answered.by,
        "evaluate.temperature": answered.temperature,
        "evaluate.max_new_tokens": answered.max_new_tokens,
        "generate.system": answered.system,
        "evaluate.stop": answered.stop,
        "reward.gate_on": config.reward.gate_on if config.reward.gate_on in names else None,
        "reward.settings": {name: config.reward.settings.get(name, {}) for name in sorted(names)},
    }


def _pair(
    name: str, against: str, ours: Sequence[Sample], theirs: Sequence[Sample], measures: Sequence[Scorer]
) -> Versus:
    prompts = [{row.task.id: prompt_key(row.task.prompt) for row in rows} for rows in (ours, theirs)]
    shared = prompts[0].keys() & prompts[1].keys()
    if other := sorted(key for key in shared if prompts[0][key] != prompts[1][key]):
        raise DataError(f"test task {other[0]!r} has different prompts in {name} and {against}")
    if not shared:
        raise DataError(f"{name} and {against} have no test task in common, so they cannot be compared")
    after, before = ([row for row in rows if row.task.id in shared] for rows in (ours, theirs))
    found = compared(before, after, measures, seed=0)
    unshared = len(prompts[0].keys() | prompts[1].keys()) - len(shared)
    return Versus(run=name, against=against, found=found, unshared=unshared)


def _ended(run: Run) -> list[Sample]:
    if not run.final_file.is_file():
        if not run.tasks("test"):
            raise RunFolderError(f"{run.path} has no test tasks (tasks.test 0): there is nothing to compare")
        raise RunFolderError(
            f"{run.path} has no final measurement: run `selfrefine cycle --run {run.called}` or "
            f"`selfrefine gate --run {run.called} --final`"
        )
    return list(run.final.samples("test"))


def _names(runs: Sequence[Run]) -> list[str]:
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]
