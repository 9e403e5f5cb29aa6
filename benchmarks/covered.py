"""The control of `fault` on constrained text: what `--config demo-text` rewards, without a place.

selfrefine critique in.jsonl --critique-source benchmarks/covered.py:check_again
"""

from __future__ import annotations

from selfrefine.records import Reward, Sample
from selfrefine.rewards import coverage, sentence
from selfrefine.rewards.base import RewardOptions

_KINDS = (coverage.REWARD, sentence.REWARD)
_SCORERS = [kind.make(kind.settings(), RewardOptions()) for kind in _KINDS]


def check_again(sample: Sample) -> Reward:
    """Coverage, and 0 where the answer is no sentence, with nothing to keep: all is asked for anew."""
    covered, formed = (scorer.score([sample])[0] for scorer in _SCORERS)
    if covered.value is None or not formed.value:
        return Reward(name="covered", value=formed.value, error=covered.error, detail=formed.detail, keep=0)
    return Reward(name="covered", value=covered.value, detail=covered.detail, keep=0)
