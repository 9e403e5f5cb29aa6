"""random: the placebo. A number that depends on the seed and the row's id and on nothing else.

A training recipe that also "improves" with this reward has learnt
something other than what it was rewarded for.
"""

from __future__ import annotations

from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each
from selfrefine.seeds import derive


def make(_own: object, options: RewardOptions) -> Scorer:
    def score(sample: Sample) -> Reward:
        value = derive(options.seed, "reward.random", sample.id) / 2**53
        return checked("random", value, None, f"seed:{options.seed}")

    return Scorer(name="random", score=each(score))


REWARD = RewardKind(
    name="random",
    about="placebo: random values; a gain from training on it does not come from the reward",
    make=make,
)
