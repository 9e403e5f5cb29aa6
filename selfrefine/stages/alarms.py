"""Alarms while a stage works: what silently ruins a round, said at once. They stop nothing.

Each is looked at once per stage and round, from what the stage came to or, in training, from each step.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from selfrefine.steps import run_on
from selfrefine.steps.critique_outcome import Outcome, unread_share
from selfrefine.steps.generate import Drawn
from selfrefine.steps.reward import RewardSums
from selfrefine.thresholds import AlarmsConfig


class Alarm(Struct, frozen=True, kw_only=True):
    """One that rings: the sentence, the figure and the threshold."""

    name: str
    value: float
    limit: float
    reason: str


FEW, EARLY = 8, 32
"""Answers from which on it can be told that they do not end: of a whole stage, and before its end."""


def of_drawn(
    found: Drawn, settings: AlarmsConfig, temperature: float = 1.0, template: bool | None = None
) -> list[Alarm]:
    """After `generate`: answers cut off, and a policy that says one thing only (greedy answers aside)."""
    answered = found.samples - found.errors
    cut = found.truncated / answered if answered else None
    words = "{:.0%} of the answers are cut off at max_new_tokens"
    rings = run_on_alarm(found, settings, template) or _from("truncated", cut, settings.truncated, words)
    if temperature and found.entropy is not None and found.entropy < settings.entropy:
        rings.append(_entropy(found.entropy, settings))
    return rings


def run_on_alarm(found: Drawn, settings: AlarmsConfig, template: bool | None) -> list[Alarm]:
    """Answers that do not end, with the stop text that would end them. A base model's never do."""
    answered = found.samples - found.errors
    stops = run_on.stops(answered, found.truncated, found.ran_on, template)
    if not stops or answered < FEW:
        return []
    why = "the model has no chat template" if template is False else "they go on after the first line"
    words = f"{{:.0%}} of the answers are cut off at max_new_tokens: {why}; {run_on.value(stops)} ends them"
    return _from("truncated", found.truncated / answered, settings.truncated, words)


def run_on_early(found: Drawn, settings: AlarmsConfig, template: bool | None) -> list[Alarm]:
    """The same, while answers are still drawn."""
    return run_on_alarm(found, settings, template) if found.samples >= EARLY else []


def of_critiques(found: Outcome, settings: AlarmsConfig) -> list[Alarm]:
    """After `critique`: verdicts that could not be read."""
    words = "{:.0%} of the critiques have no readable verdict"
    return _from("unparsed", unread_share(found), settings.unparsed, words)


def of_rewards(found: RewardSums, settings: AlarmsConfig) -> list[Alarm]:
    """After `reward`: groups whose answers all got the same reward teach nothing."""
    flat = found.flat / found.groups if found.groups else None
    words = "for {:.0%} of the prompts all answers have the same reward"
    return _from("no_spread", flat, settings.no_spread, words)


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
                f"step {step}: {kl:.3g} nats per token from the reference or sampling policy",
            )
        )
    clipped = metrics.get("clip_share")
    found += _from(
        "clip_share",
        clipped,
        settings.clip_share,
        f"step {step}: {{:.0%}} of the ratios are clipped",
    )
    if (entropy := metrics.get("entropy")) is not None and entropy < settings.entropy:
        found.append(_entropy(entropy, settings))
    return found


def _entropy(value: float, settings: AlarmsConfig) -> Alarm:
    said = f"entropy {value:.2g} nats per token: the answers hardly vary"
    return _alarm("entropy", value, settings.entropy, said)


def _from(name: str, share: float | None, limit: float, words: str) -> list[Alarm]:
    """A share rings from its limit on; at a limit of 1, when it is everything."""
    return [_alarm(name, share, limit, words.format(share))] if share is not None and share >= limit else []


def _alarm(name: str, value: float, limit: float, said: str) -> Alarm:
    return Alarm(name=name, value=value, limit=limit, reason=f"alarm: {said} (alarms.{name} {limit:g})")
