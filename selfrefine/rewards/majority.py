"""majority: 1 when an answer agrees with most of the policy's own answers to its prompt. No references.

Each finished answer of the group votes with what is extracted from it: the last number, or the whole text.
An answer without a vote of its own is wrong where there is a majority; one whose number cannot be read is
unscored. Where the first place is shared (all answers different, too) there is no majority, and the group is
unscored: an arbitrary winner would teach nothing true. Answers that were cut off and revisions do not vote;
they are judged like the others.

Source: Zuo et al. 2025, "TTRL: Test-Time Reinforcement Learning", section 2 (majority voting reward); Wang et
al. 2023, "Self-Consistency Improves Chain of Thought Reasoning".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Literal

from msgspec import Meta, Struct

from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, Share, checked, each_group, unscored
from selfrefine.rewards.numbers import Number, last_number


class MajoritySettings(Struct, frozen=True, forbid_unknown_fields=True):
    extract: Annotated[
        Literal["number", "text"],
        Meta(description="What must agree: the last number, or the whole text."),
    ] = "number"
    min_share: Annotated[Share, Meta(description="Smallest share of the votes that is a majority.")] = 0.0


def make(own: MajoritySettings, options: RewardOptions) -> Scorer:
    signature = f"extract:{own.extract}" + (f"|min-share:{own.min_share:g}" if own.min_share else "")

    def score(group: Sequence[Sample]) -> list[Reward]:
        found = [final(sample, own) for sample in group]
        voices = [one.value if isinstance(one, Number) else one for one in found]
        votes = Counter(
            voice
            for sample, voice in zip(group, voices, strict=True)
            if voice is not None and sample.finish_reason == "stop" and sample.parent_id is None
        )
        why = _no_majority(votes, own.min_share)
        if why is not None:
            return [unscored("majority", why, signature) for _ in group]
        [(winner, n)] = votes.most_common(1)
        detail = f"{n} of {votes.total()} answers agree"
        return [
            unscored("majority", f"cannot read the number in the answer: {one.why}", signature)
            if isinstance(one, Number) and one.value is None
            else checked("majority", voice == winner, detail, signature)
            for one, voice in zip(found, voices, strict=True)
        ]

    return Scorer(name="majority", score=each_group(score))


def final(sample: Sample, own: MajoritySettings) -> Number | str | None:
    """The final answer in an answer's text; None where there is none."""
    if own.extract == "number":
        return last_number(sample.text)
    return " ".join(sample.text.casefold().split()) or None


def voice(sample: Sample, own: MajoritySettings) -> Fraction | str | None:
    """What an answer votes for; None where that cannot be read."""
    found = final(sample, own)
    return found.value if isinstance(found, Number) else found


def _no_majority(votes: Counter[Fraction | str], min_share: float) -> str | None:
    if votes.total() < 2:
        return f"{votes.total()} of the prompt's answers can vote; 2 are needed"
    (_, first), *rest = votes.most_common(2)
    if rest and rest[0][1] == first:
        return f"no majority: a tie at {first} of {votes.total()} votes"
    if first < min_share * votes.total():
        return f"no majority: {first} of {votes.total()} votes is below min_share"
    return None


REWARD = RewardKind(
    name="majority",
    about="1 if the answer agrees with most of the policy's answers to the prompt; needs no references",
    make=make,
    settings=MajoritySettings,
    judge="policy",
    why_no_measure="majority measures whether answers agree, not whether they are right",
    source="Zuo et al. 2025, section 2",
)
