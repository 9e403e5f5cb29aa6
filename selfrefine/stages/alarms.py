"""Alarms while a stage works: what silently ruins a round, said at once. They stop nothing.

Each is looked at once per stage and round, from what the stage came to or, in training, from each step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

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
    found: Drawn,
    settings: AlarmsConfig,
    temperature: float = 1.0,
    template: bool | None = None,
    given: Collection[str] = (),
) -> list[Alarm]:
    """After `generate`: answers cut off, and a policy that says one thing only (greedy answers aside)."""
    answered = found.samples - found.errors
    cut = found.truncated / answered if answered else None
    words = "{} of the answers are cut off at max_new_tokens"
    rings = run_on_alarm(found, settings, template, given) or _from("truncated", cut, settings, words)
    if temperature and found.entropy is not None and found.entropy < settings.entropy:
        rings.append(_entropy(found.entropy, settings))
    return rings


def run_on_alarm(
    found: Drawn, settings: AlarmsConfig, template: bool | None, given: Collection[str] = ()
) -> list[Alarm]:
    """Answers that do not end, with the stop text that would end them. A base model's never do.

    `given`: the stop texts that are set.
    """
    answered = found.samples - found.errors
    stops = run_on.stops(answered, found.truncated, found.ran_on, template, given)
    if not stops or answered < FEW:
        return []
    why = "the model has no chat template" if template is False else "they go on after the first line"
    words = (
        f"{{}} of the answers are cut off at max_new_tokens: {why}; {run_on.value(stops, given)} ends them"
    )
    return _from("truncated", found.truncated / answered, settings, words)


def run_on_early(
    found: Drawn, settings: AlarmsConfig, template: bool | None, given: Collection[str] = ()
) -> list[Alarm]:
    """The same, while answers are still drawn."""
    return run_on_alarm(found, settings, template, given) if found.samples >= EARLY else []


def of_critiques(found: Outcome, settings: AlarmsConfig, *, resume: bool = False) -> list[Alarm]:
    """After `critique`: verdicts that could not be read; with `resume`, revisions that were written anew
    because no fault was placed."""
    words = "{} of the critiques have no readable verdict"
    rung = _from("unparsed", unread_share(found), settings, words)
    near = found.near
    if resume and near.revisions:
        words = "{} of the revisions were written anew: their critiques place no fault (Reward.keep)"
        rung += _from("unplaced", 1 - near.resumed / near.revisions, settings, words)
    return rung


def of_rewards(found: RewardSums, settings: AlarmsConfig) -> list[Alarm]:
    """After `reward`: groups whose answers all got the same reward teach nothing."""
    flat = found.flat / found.groups if found.groups else None
    words = "for {} of the prompts all answers have the same reward"
    return _from("no_spread", flat, settings, words)


def of_step(step: int, grad_norm: float, metrics: Mapping[str, float], settings: AlarmsConfig) -> list[Alarm]:
    """After a training step: gradient norm before clipping, and what the objective tells (nats per token)."""
    found = []
    if grad_norm > settings.grad_norm:
        said = f"step {step}: gradient norm {grad_norm:.3g}"
        found.append(_alarm("grad_norm", grad_norm, settings, said))
    if (kl := metrics.get("kl", 0.0)) > settings.kl:
        said = f"step {step}: {kl:.3g} nats per token from the reference or sampling policy"
        found.append(_alarm("kl", kl, settings, said))
    said = f"step {step}: {{}} of the ratios are clipped"
    found += _from("clip_share", metrics.get("clip_share"), settings, said)
    if (entropy := metrics.get("entropy")) is not None and entropy < settings.entropy:
        found.append(_entropy(entropy, settings))
    return found


def once(ring: Callable[[list[Alarm]], object]) -> Callable[[list[Alarm]], None]:
    """`ring`, told of each alarm the first time only."""
    rung: set[str] = set()

    def first(found: list[Alarm]) -> None:
        ring([one for one in found if one.name not in rung])
        rung.update(one.name for one in found)

    return first


def _entropy(value: float, settings: AlarmsConfig) -> Alarm:
    said = f"entropy {value:.2g} nats per token: the answers hardly vary"
    return _alarm("entropy", value, settings, said)


def _from(name: str, share: float | None, settings: AlarmsConfig, words: str) -> list[Alarm]:
    """A share rings from its limit on; at a limit of 1, when it is everything."""
    if share is None or share < getattr(settings, name):
        return []
    return [_alarm(name, share, settings, words.format(f"{100 * share:.0f} %"))]


def _alarm(name: str, value: float, settings: AlarmsConfig, said: str) -> Alarm:
    limit = getattr(settings, name)
    return Alarm(name=name, value=value, limit=limit, reason=f"alarm: {said} (alarms.{name} {limit:g})")
