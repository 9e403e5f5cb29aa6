"""critic: score of the answer's last critique, as `critique` parsed it.

A last critique without a score makes the row unscored: an earlier pass judged another stage of the work.
"""

from __future__ import annotations

from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each, unscored


def make(_own: object, options: RewardOptions) -> Scorer:
    return Scorer(name="critic", score=each(_score))


def _score(sample: Sample) -> Reward:
    if not sample.critiques:
        return unscored("critic", "no critique on this row; run `selfrefine critique` first")
    last = sample.critiques[-1]
    judges = " + ".join(f"{one.critic}|prompt:{one.prompt_sha256[:12]}" for one in last.voices)
    signature = f"critic:{judges}"
    if last.score is None:
        return unscored("critic", f"the critique has no score ({last.error or 'not parsed'})", signature)
    return checked("critic", last.score, None, signature)


REWARD = RewardKind(
    name="critic",
    about="score of the answer's last critique",
    make=make,
    judge="policy",
    why_no_measure="held-out answers are not criticised, so `critic` cannot measure them",
)
