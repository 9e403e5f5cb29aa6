"""Alarms while a stage works: what silently ruins a round, said at once. They stop nothing.

Each is looked at once per stage and round, from the rows the stage made or, in training, from each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from selfrefine.config import AlarmsConfig
from selfrefine.gating.guards import sampled_entropy
from selfrefine.records import Sample, groups


class Alarm(Struct, frozen=True, kw_only=True):
    """One that rings: the sentence, the figure and the threshold."""

    name: str
    value: float
    limit: float
    reason: str


def of_samples(samples: Sequence[Sample], settings: AlarmsConfig, temperature: float = 1.0) -> list[Alarm]:
    """After `generate`: answers cut off, and a policy that says one thing only (greedy answers aside)."""
    rows = [row for row in samples if row.finish_reason != "error"]
    cut = _share(row.finish_reason == "length" for row in rows)
    found = _from("truncated", cut, settings.truncated, "{:.0%} of the answers are cut off at max_new_tokens")
    entropy = sampled_entropy(rows) if temperature else None
    if entropy is not None and entropy < settings.entropy:
        found.append(_entropy(entropy, settings))
    return found


def of_critiques(samples: Sequence[Sample], settings: AlarmsConfig) -> list[Alarm]:
    """After `critique`: verdicts that could not be read."""
    # Not by `error`: that is also where an unread verdict says why.
    critiques = [one for row in samples for one in row.critiques if one.finish_reason != "error"]
    unread = _share(one.verdict is None for one in critiques)
    return _from(
        "unparsed", unread, settings.unparsed, "{:.0%} of the critiques have no verdict that can be read"
    )


def of_rewards(samples: Sequence[Sample], settings: AlarmsConfig) -> list[Alarm]:
    """After `reward`: groups whose answers all got the same reward teach nothing."""
    rewards = [[row.reward for row in group if row.reward is not None] for group in groups(samples)]
    flat = _share(len(set(group)) == 1 for group in rewards if len(group) > 1)
    return _from(
        "no_spread", flat, settings.no_spread, "{:.0%} of the prompts have answers of one reward only"
    )


def of_step(step: int, grad_norm: float, metrics: Mapping[str, float], settings: AlarmsConfig) -> list[Alarm]:
    """After a training step: gradient norm before clipping, and what the objective tells (nats per token)."""
    found = []
    if grad_norm > settings.grad_norm:
        found.append(
            _alarm("grad_norm", grad_norm, settings.grad_norm, f"step {step}: gradient norm {grad_norm:.3g}")
        )
    if (kl := metrics.get("kl", 0.0)) > settings.kl:
        found.append(
            _alarm(
                "kl",
                kl,
                settings.kl,
                f"step {step}: {kl:.3g} nats per token away from the reference, or from what sampled",
            )
        )
    clipped = metrics.get("clip_share")
    found += _from(
        "clip_share",
        clipped,
        settings.clip_share,
        f"step {step}: {{:.0%}} of the ratios (of tokens, or of whole answers) are clipped",
    )
    if (entropy := metrics.get("entropy")) is not None and entropy < settings.entropy:
        found.append(_entropy(entropy, settings))
    return found


def _entropy(value: float, settings: AlarmsConfig) -> Alarm:
    said = f"entropy {value:.2g} nats per token: the policy hardly varies its answers"
    return _alarm("entropy", value, settings.entropy, said)


def _from(name: str, share: float | None, limit: float, words: str) -> list[Alarm]:
    """A share rings from its limit on; at a limit of 1, when it is everything."""
    return [_alarm(name, share, limit, words.format(share))] if share is not None and share >= limit else []


def _alarm(name: str, value: float, limit: float, said: str) -> Alarm:
    return Alarm(name=name, value=value, limit=limit, reason=f"alarm: {said} (alarms.{name} {limit:g})")


def _share(flags: Iterable[bool]) -> float | None:
    found = list(flags)
    return sum(found) / len(found) if found else None
