"""What the guards' figures are, in a few words each, and what a warning asks for."""

from __future__ import annotations

FIGURES = {
    "length": "tokens per held-out answer",
    "repetition": "share of repeated 3-grams in held-out answers",
    "truncation": "share of held-out answers that are cut off",
    "distinct": "different answers per training prompt",
    "entropy": "nats per sampled token: how much answers vary",
    "reward-length": "rank correlation of reward and length",
    "gold": "a reward that is never trained on",
}
"""By name, the figures of the guards' table."""

WARNINGS = {
    "length": "shorter or longer is no fault by itself; look whether the reward pays for it",
    "repetition": "look at some answers: a policy that repeats itself may be paid for it",
    "truncation": "answers that do not end are mostly wrong; more tokens, or a smaller learning rate",
    "distinct": "with fewer different answers there is less to choose from",
    "entropy": "the policy says the same again and again, and will find little that is new",
    "reward-length": "look whether the reward measures what is meant, or length",
    "forgetting": "it answers other tasks worse than before; replay or a smaller learning rate keep more",
    "perplexity": "other texts surprise it more than before; replay or a smaller learning rate keep more",
    "lessons": "what earlier rounds taught is fading; replay keeps it",
    "gold": "the measure rises and this one falls: the measure may be gamed",
}
"""By the first word of a guard's name."""


def asks(name: str) -> str | None:
    """What a warning of this guard asks of a person."""
    return WARNINGS.get(name.partition(" ")[0])
