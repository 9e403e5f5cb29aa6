"""Outside code as a reward: `path/to/file.py:function`.

The function takes a Sample and returns a Reward, a number in [0, 1] or None (no score). With the attribute
`function.group = True` it takes the samples of one prompt and returns a list of as many. When it raises, its
rows are unscored with the reason and the run goes on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from selfrefine.errors import ConfigError
from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardOptions, Scorer, checked, each, each_group, unscored


def make(spec: str, options: RewardOptions) -> Scorer:
    """Raises: ConfigError when the file does not import or has no such function."""
    path, _, function = spec.rpartition(":")
    if options.settings:
        raise ConfigError(f"reward {spec}: a file's function takes no settings but pass_at")
    module, digest = _load(Path(path), spec)
    run: Callable[[Any], Any] | None = getattr(module, function, None)
    if not callable(run):
        there = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ConfigError(f"reward {spec}: {path} has no function {function} (it has: {', '.join(there)})")
    signature = f"file:{Path(path).name}|sha256:{digest[:12]}|fn:{function}"

    def one(sample: Sample) -> Reward:
        try:
            result = run(sample)
        except Exception as error:  # noqa: BLE001  outside code: the row fails, not the run
            return unscored(spec, _why(error), signature)
        return _reward(spec, result, sample, signature, options.reveal_references)

    def group(samples: Sequence[Sample]) -> list[Reward]:
        try:
            results = list(run(samples))
            if len(results) != len(samples):
                raise ValueError(f"{len(results)} values for {len(samples)} samples")
        except Exception as error:  # noqa: BLE001  outside code: the group fails, not the run
            return [unscored(spec, _why(error), signature)] * len(samples)
        pairs = zip(results, samples, strict=True)
        return [_reward(spec, r, s, signature, options.reveal_references) for r, s in pairs]

    score = each_group(group) if getattr(run, "group", False) else each(one)
    return Scorer(name=spec, score=score)


def _load(path: Path, spec: str) -> tuple[ModuleType, str]:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"reward {spec}: cannot read {path}: {error.strerror}") from None
    name = f"selfrefine_reward_{digest[:16]}"
    loader = importlib.util.spec_from_file_location(name, path)
    if loader is None or loader.loader is None:
        raise ConfigError(f"reward {spec}: {path} is not a Python file")
    module = importlib.util.module_from_spec(loader)
    sys.modules[name] = module  # dataclasses and pickles look their module up by name
    try:
        loader.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001  outside code, its reason is passed on
        sys.modules.pop(name, None)
        raise ConfigError(f"reward {spec}: {path} does not import: {_why(error)}") from None
    return module, digest


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _reward(name: str, result: object, sample: Sample, signature: str, reveal: bool) -> Reward:
    if result is None:
        return unscored(name, "the function returned None", signature)
    if isinstance(result, Real):
        return checked(name, float(result), None, signature)
    if not isinstance(result, Reward):
        return unscored(name, f"the function returned {type(result).__name__}, not a number", signature)
    signature = "|".join(filter(None, (signature, result.signature)))
    if result.value is None:
        return unscored(name, result.error or "no reason given", signature)
    detail = None if result.detail is None else str(result.detail)
    if detail is not None and not reveal and _tells(detail, sample.task.references):
        detail = "(withheld: it contains a reference)"
    reward = checked(name, result.value, detail, signature)
    return msgspec.structs.replace(reward, error=reward.error or result.error)


def _tells(detail: str, references: Sequence[str]) -> bool:
    """A whole-word search: the reference "1" is not in "10 words", "dog" is in "missing: dog"."""
    said = " ".join(detail.casefold().split())
    parts = (part for reference in references for part in (reference, reference.rpartition("####")[2]))
    wanted = {" ".join(part.casefold().split()) for part in parts}
    return any(re.search(rf"(?<!\w){re.escape(w)}(?!\w)", said) for w in wanted if w)
