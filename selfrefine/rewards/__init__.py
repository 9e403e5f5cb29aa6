"""One file per reward. The registry maps a name to its factory, imported only when asked for.

A factory is `make(options: RewardOptions, engine: Engine | None) -> Scorer`.
"""

from __future__ import annotations

REWARDS: dict[str, str] = {
    "exact": "selfrefine.rewards.exact:make",
    "numeric": "selfrefine.rewards.numeric:make",
    "regex": "selfrefine.rewards.regex:make",
    "coverage": "selfrefine.rewards.coverage:make",
    "sentence": "selfrefine.rewards.sentence:make",
    "bleu": "selfrefine.rewards.bleu:make",
    "chrf": "selfrefine.rewards.chrf:make",
    "ter": "selfrefine.rewards.ter:make",
    "length": "selfrefine.rewards.length:make",
    "repetition": "selfrefine.rewards.repetition:make",
    "fluency": "selfrefine.rewards.fluency:make",
    "critic": "selfrefine.rewards.critic:make",
    "p-true": "selfrefine.rewards.p_true:make",
    "gym": "selfrefine.rewards.gym:make",
    "majority": "selfrefine.rewards.majority:make",
    "random": "selfrefine.rewards.random:make",
}

NEEDS_ENGINE = frozenset({"fluency", "p-true"})
"""These ask a model; all others run without torch."""
