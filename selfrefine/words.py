"""How a message counts things, and what an error says of a name that is not there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def count(n: int, noun: str, plural: str | None = None) -> str:
    """ "1 round", "2 rounds", "43,189 tokens"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def a(noun: str) -> str:
    """ "a reward", "an objective"."""
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def near(word: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, if one is close.

    Of dotted keys by the last part first (`train.learning_rate` is lr, `train.lora_r` is train.lora.r), of
    several the one in the nearest table; by spelling otherwise.
    """
    choices = sorted(known)
    table, dot, last = word.casefold().rpartition(".")
    names, run_together = {last, _ALIASES.get(last)}, _run_together(word)
    best = [
        one
        for one in choices
        if one.rpartition(".")[2] in names
        or (len(run_together) > 2 and _run_together(one).endswith(run_together))
    ]
    if dotted := [one for one in best if "." in one]:
        return max(dotted, key=lambda one: (_alike(table, one.rpartition(".")[0]), one in _USUAL))
    beside = [one for one in choices if dot and one.rpartition(".")[0] == table]
    by_last = difflib.get_close_matches(last, [one.rpartition(".")[2] for one in beside], n=1, cutoff=0.6)
    if by_last:
        return f"{table}.{by_last[0]}"
    return next(iter(difflib.get_close_matches(word, choices, n=1, cutoff=0.75 if dot else 0.5)), None)


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error sentence: what was probably meant, and what there is."""
    choices = sorted(known)
    meant = near(word, choices)
    return f"{f'; did you mean {meant!r}?' if meant else ''} (known: {', '.join(choices) or 'none'})"


_BOUNDS = {">=": "{} or more", "<=": "at most {}", ">": "more than {}", "<": "less than {}"}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "empty",
}


def in_words(refusal: str) -> str | None:
    """What msgspec says of a value that it refuses: "must be 1 or more". None for what is none of these."""
    if found := re.fullmatch(r"Expected `[^`]+` (>=|<=|>|<) (\S+)", refusal):
        return f"must be {_BOUNDS[found[1]].format(found[2].removesuffix('.0'))}"
    if found := re.fullmatch(r"Expected `([^`]+)`, got `([^`]+)`", refusal):
        wanted = " or ".join(_TYPES.get(one, one) for one in found[1].split(" | ") if one != "null")
        return f"must be {wanted}, not {_TYPES.get(found[2], found[2])}"
    if found := re.fullmatch(r"Expected `(\w+)` of length (>=|<=|>|<)? ?(\d+)(?:, got (\d+))?", refusal):
        if found[2] == ">=" and found[3] == "1":
            return "must not be empty"
        size = _BOUNDS[found[2]].format(found[3]) if found[2] else found[3]
        of = "values" if found[1] == "array" else "characters"
        return f"must have {size} {of}" + (f", not {found[4]}" if found[4] else "")
    return None


_OTHERS: dict[str, tuple[str, ...]] = {
    "n": ("num_samples", "samples", "num_generations"),
    "max_new_tokens": ("max_tokens", "max_length", "max_completion_length"),
    "temperature": ("temp",),
    "stop": ("stop_strings",),
    "system": ("system_prompt",),
    "epochs": ("num_train_epochs", "num_epochs"),
    "steps": ("max_steps",),
    "batch_size": ("per_device_train_batch_size",),
    "lr": ("learning_rate",),
    "clip": ("max_grad_norm",),
    "warmup": ("warmup_ratio", "warmup_steps"),
    "schedule": ("lr_scheduler_type", "lr_scheduler", "scheduler"),
    "r": ("rank", "lora_rank"),
    "targets": ("target_modules",),
    "min_reward": ("threshold",),
    "rounds": ("num_rounds", "iterations", "num_iterations"),
    "name": ("loss_type",),
}
_ALIASES = {other: own for own, others in _OTHERS.items() for other in others}
"""What other trainers call a setting, to the last part of its name here."""


_USUAL = ("generate.n", "generate.temperature", "generate.max_new_tokens", "generate.stop")
"""Of equally near settings, those that most people mean."""


def _alike(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _run_together(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
