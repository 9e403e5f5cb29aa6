"""One file per reward, which describes itself; here is only where each is. Imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfrefine.registry import Origin, Registry

if TYPE_CHECKING:
    from selfrefine.rewards.base import RewardKind


def _adopt(name: str, value: object, origin: Origin) -> RewardKind | None:
    from selfrefine.rewards.outside import adopt

    return adopt(name, value, origin)


REWARDS: Registry[RewardKind] = Registry(
    "reward",
    "selfrefine.rewards",
    {
        "exact": "selfrefine.rewards.exact:REWARD",
        "numeric": "selfrefine.rewards.numeric:REWARD",
        "regex": "selfrefine.rewards.regex:REWARD",
        "coverage": "selfrefine.rewards.coverage:REWARD",
        "sentence": "selfrefine.rewards.sentence:REWARD",
        "bleu": "selfrefine.rewards.bleu:REWARD",
        "chrf": "selfrefine.rewards.chrf:REWARD",
        "ter": "selfrefine.rewards.ter:REWARD",
        "length": "selfrefine.rewards.length:REWARD",
        "repetition": "selfrefine.rewards.repetition:REWARD",
        "fluency": "selfrefine.rewards.fluency:REWARD",
        "critic": "selfrefine.rewards.critic:REWARD",
        "p-true": "selfrefine.rewards.p_true:REWARD",
        "gym": "selfrefine.rewards.gym:REWARD",
        "majority": "selfrefine.rewards.majority:REWARD",
        "random": "selfrefine.rewards.random:REWARD",
    },
    _adopt,
)
