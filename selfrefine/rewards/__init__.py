"""One file per reward, which describes itself; here is only where each is. Imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfrefine.registry import Registry

if TYPE_CHECKING:
    from selfrefine.rewards.base import RewardKind


REWARDS: Registry[RewardKind] = Registry(
    "reward",
    "selfrefine.rewards",
    "selfrefine.rewards.base:RewardKind",
    {
        "exact": "selfrefine.rewards.exact:REWARD",
        "numeric": "selfrefine.rewards.numeric:REWARD",
        "math": "selfrefine.rewards.math:REWARD",
        "regex": "selfrefine.rewards.regex:REWARD",
        "coverage": "selfrefine.rewards.coverage:REWARD",
        "sentence": "selfrefine.rewards.sentence:REWARD",
        "bleu": "selfrefine.rewards.sacre:BLEU",
        "chrf": "selfrefine.rewards.sacre:CHRF",
        "ter": "selfrefine.rewards.sacre:TER",
        "length": "selfrefine.rewards.length:REWARD",
        "repetition": "selfrefine.rewards.repetition:REWARD",
        "fluency": "selfrefine.rewards.fluency:REWARD",
        "critic": "selfrefine.rewards.critic:REWARD",
        "p-true": "selfrefine.rewards.p_true:REWARD",
        "rank-critic": "selfrefine.rewards.rank_critic:REWARD",
        "gym": "selfrefine.rewards.gym:REWARD",
        "majority": "selfrefine.rewards.majority:REWARD",
        "random": "selfrefine.rewards.random:REWARD",
    },
    adopt="selfrefine.rewards.outside:adopt",
)
