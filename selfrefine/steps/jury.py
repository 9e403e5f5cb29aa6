"""Several critics of one text: what they say together, and what each of them said.

More than half of the verdicts that can be read must be `ok` for `ok`: of two that disagree, one found a
fault. What the reviser reads are the texts of those that say `revise`, without their critics' names: a name
says nothing about the answer, and a small model copies it into the revision. Who said what stands in `votes`.

Source: Verga et al. 2024, "Replacing Judges with Juries": a panel of different models, by vote. Differs:
rewards and programs are on the panel, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from selfrefine.engines.base import Engine
from selfrefine.records import Critique, FinishReason, Verdict
from selfrefine.seeds import derive
from selfrefine.steps.critics import Asked, Critic, Teller, first_fault, told
from selfrefine.steps.select_details import TOLD, is_told

CRITICS = "critics"
"""`Critique.critic` of what several said together."""


class Member(NamedTuple):
    """An entry of `critique.critics`. `tell` is None where a model criticises: `model` or `policy`."""

    name: str
    tell: Teller | None = None


def jury(members: Sequence[tuple[str, Critic]]) -> Critic:
    """One critique of each text, with the critique of every member in `votes`."""

    def criticise(asked: Sequence[Asked]) -> list[Critique]:
        found = [critic([_for(name, one) for one in asked]) for name, critic in members]
        names = [name for name, _ in members]
        return [_together(names, votes) for votes in zip(*found, strict=True)]

    return criticise


def members(
    found: Sequence[Member], by_model: Callable[[Engine], Critic], critic: Engine, policy: Engine, mark: float
) -> list[tuple[str, Critic]]:
    """Each by its name. `mark`: the reward from which a text needs no revision."""
    return [
        (
            one.name,
            told(one.tell, TOLD if one.name == TOLD else f"{TOLD}:{one.name}", mark)
            if one.tell
            else by_model(policy if one.name == "policy" else critic),
        )
        for one in found
    ]


def _for(name: str, one: Asked) -> Asked:
    """`model` is asked as it is alone. With the same seed two models would draw alike, and agree by that."""
    return one._replace(seed=derive(one.seed, "critic", name)) if name == "policy" else one


def _why(name: str, vote: Critique) -> str:
    why = vote.error or "no verdict"
    return why if why.startswith(f"{name}: ") else f"{name}: {why}"  # what a reward says has its name


def _together(names: Sequence[str], votes: Sequence[Critique]) -> Critique:
    heard = [vote for vote in votes if vote.finish_reason != "error"]
    said = [vote.verdict for vote in heard if vote.verdict is not None]
    scores = [vote.score for vote in votes if vote.score is not None]
    verdict: Verdict | None = None
    error: str | None = None
    if said:
        verdict = "ok" if said.count("ok") > len(said) / 2 else "revise"
    else:
        error = "; ".join(_why(name, vote) for name, vote in zip(names, votes, strict=True))
    # Without a verdict the text counts as to be revised, by whatever was written, as with a single critic.
    shown = [vote for vote in heard if vote.verdict == "revise" or not said]
    texts = dict.fromkeys(text for vote in shown if (text := vote.text.strip()))
    finish: FinishReason = "stop"
    if not heard:
        finish = "error"
    elif any(vote.finish_reason == "length" for vote in shown):
        finish = "length"
    return Critique(
        text="\n\n".join(texts),
        score=sum(scores) / len(scores) if scores else None,
        verdict=verdict,
        finish_reason=finish,
        error=error,
        keep=first_fault([vote.keep for vote in shown]),
        pass_index=votes[0].pass_index,
        critic=CRITICS,
        # Nobody was asked for what rewards told, and from votes nobody learns: no prompt is stored for it.
        votes=tuple(replace(vote, messages=()) if is_told(vote) else vote for vote in votes),
    )
