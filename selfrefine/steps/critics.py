"""Who criticises: a model that writes, a model whose choice is read off its probabilities, or the rewards.

Each is a function from texts to their critiques, in order. What a critic thinks of a text stands in the
critique's verdict; `critique.py` revises what is not `ok`.

Source: Kadavath et al. 2022, "Language Models (Mostly) Know What They Know", for judging by the probability
of a choice; Zheng et al. 2023, "Judging LLM-as-a-Judge", section 3.4, for swapping the order of the choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from selfrefine import verdict
from selfrefine.config import Sampling
from selfrefine.engines.base import Completion, Engine
from selfrefine.prompts import Template
from selfrefine.records import Critique, Message, Reward, Sample, Verdict
from selfrefine.steps.asking import ask
from selfrefine.steps.turns import as_text, of_chat

VERDICTS = ("ok", "revise")
GRADES = ("0", "1", "2", "3", "4", "5")


class Asked(NamedTuple):
    """One text to criticise. `chat`: what a critic that writes is asked; `shown`: what a template may say."""

    row: Sample
    chat: tuple[Message, ...]
    shown: dict[str, str]
    seed: int
    pass_index: int
    mark: str = ""
    """Ends `Critique.critic`: `+references` where they were shown."""


Critic = Callable[[Sequence[Asked]], list[Critique]]
Teller = Callable[[Sequence[Sample]], Sequence[Sequence[Reward]]]
"""What is known of each text: some rewards with their details."""


def written(engine: Engine, sampling: Sampling, template: Template) -> Critic:
    """The critic writes, and its verdict and score are parsed from that."""

    def criticise(asked: Sequence[Asked]) -> list[Critique]:
        answers = ask(engine, [one.chat for one in asked], [(one.seed,) for one in asked], sampling)
        return [
            _written(engine, template, one, prompt, answer)
            for one, (prompt, (answer,)) in zip(asked, answers, strict=True)
        ]

    return criticise


def scored(engine: Engine, template: Template, ok_from: float, write: Critic | None) -> Critic:
    """The critic chooses among the allowed verdicts and grades; each choice is offered in both orders.

    `template`: of kind choice. p_ok is the mean over the two orders of p(ok) / (p(ok) + p(revise)), each the
    probability of that very reply; score the mean expected grade / 5. What reaches `ok_from` is ok and gets
    no text; `write` writes the others' (its own verdict is not read), and nobody does where it is None.
    """

    def criticise(asked: Sequence[Asked]) -> list[Critique]:
        judged = _judged(engine, template, asked, ok_from)
        if write is None:
            return judged
        wrong = [k for k, one in enumerate(judged) if one.verdict == "revise"]
        for k, text in zip(wrong, write([asked[k] for k in wrong]), strict=True):
            failed = text.finish_reason == "error"
            judged[k] = replace(
                text,
                p_ok=judged[k].p_ok,
                score=judged[k].score,
                verdict=None if failed else "revise",
                error=text.error if failed else None,
            )
        return judged

    return criticise


def told(tell: Teller, who: str, mark: float = 1.0) -> Critic:
    """The details of rewards as critiques, word for word: no model, no tokens.

    `ok` where every reward reaches `mark`; where one has no value there is no verdict, and nothing to say.
    """

    def criticise(asked: Sequence[Asked]) -> list[Critique]:
        found = tell([one.row for one in asked])
        return [_told(rewards, who, mark, one) for rewards, one in zip(found, asked, strict=True)]

    return criticise


def own_rewards(rows: Sequence[Sample]) -> list[tuple[Reward, ...]]:
    """The teller of `critique.source = "rewards"`: what the rows were scored with."""
    return [row.rewards for row in rows]


def _told(rewards: Sequence[Reward], who: str, mark: float, one: Asked) -> Critique:
    values = [reward.value for reward in rewards]
    # The critic's prompt, although nobody was asked: under it the policy may learn to find the same.
    base: dict[str, Any] = {"pass_index": one.pass_index, "critic": who, "messages": one.chat}
    if not values or None in values:
        errors = [f"{reward.name}: {reward.error}" for reward in rewards if reward.value is None]
        return Critique(**base, finish_reason="error", error="; ".join(errors) or "no reward on this row")
    numbers = [value for value in values if value is not None]
    score = sum(numbers) / len(numbers)
    faulty = [reward for reward in rewards if reward.value is not None and reward.value < mark - 1e-9]
    if not faulty:
        return Critique(**base, score=score, verdict="ok")
    lines = [reward.detail or f"{reward.name}: {reward.value:.2g} of 1" for reward in faulty]
    keep = first_fault([reward.keep for reward in faulty])
    return Critique(**base, text="\n".join(lines), score=score, verdict="revise", keep=keep)


def first_fault(keeps: Sequence[int | UnsetType]) -> int | UnsetType:
    """The smallest of those that are known."""
    return min((keep for keep in keeps if keep is not UNSET), default=UNSET)


def _who(engine: Engine, mark: str) -> str:
    return f"{engine.signature} policy:{engine.policy[:12]}{mark}"


def _written(
    engine: Engine, template: Template, one: Asked, prompt: tuple[int, ...], answer: Completion
) -> Critique:
    if answer.finish_reason == "error":
        parsed = verdict.Parsed(None, None, answer.error or "the critic gave no answer")
    else:
        parsed = verdict.parse(answer.text)
    return Critique(
        messages=one.chat,
        prompt_token_ids=prompt,
        token_ids=answer.token_ids,
        counted_tokens=answer.count,
        finish_reason=answer.finish_reason,
        logprobs=answer.logprobs,
        pass_index=one.pass_index,
        critic=_who(engine, one.mark),
        prompt_sha256=template.sha256,
        text=answer.text,
        score=parsed.score,
        verdict=parsed.verdict,
        error=parsed.error,
    )


_VERDICT = ((VERDICTS, ""), (VERDICTS[::-1], ""))
_GRADE = ((GRADES, "5"), (GRADES[::-1], "5"))
"""The choices in both orders, and the highest grade where they are grades."""
Questions = Sequence[tuple[tuple[str, ...], str]]


def _judged(engine: Engine, template: Template, asked: Sequence[Asked], ok_from: float) -> list[Critique]:
    made = []
    for one, found in zip(asked, _chances(engine, template, asked, (*_VERDICT, *_GRADE)), strict=True):
        base: dict[str, Any] = {
            "pass_index": one.pass_index,
            "critic": _who(engine, one.mark),
            "prompt_sha256": template.sha256,
        }
        if found is None:
            why = "the answer is too long to be judged within the context"
            made.append(Critique(**base, finish_reason="error", error=why))
            continue
        ok, (up, down) = _p_ok(found), found[2:]
        grade = sum(int(choice) * (up[choice] + down[choice]) / 2 for choice in GRADES)
        said: Verdict = "ok" if ok >= ok_from else "revise"
        made.append(Critique(**base, p_ok=ok, score=min(1.0, grade / 5), verdict=said))
    return made


def p_ok(engine: Engine, template: Template, asked: Sequence[Asked]) -> list[tuple[float | None, int]]:
    """Of each text p_ok as `scored` has it, without a grade, and the tokens that were read for it; (None, 0)
    of one that is too long for the context."""
    return [
        (None, 0)
        if found is None
        else (_p_ok(found), sum(map(len, _prompts(engine, template, one, _VERDICT))))
        for one, found in zip(asked, _chances(engine, template, asked, _VERDICT), strict=True)
    ]


def _p_ok(chances: Sequence[dict[str, float]]) -> float:
    return (chances[0]["ok"] + chances[1]["ok"]) / 2


def _chances(
    engine: Engine, template: Template, asked: Sequence[Asked], questions: Questions
) -> list[list[dict[str, float]] | None]:
    """Of each text, for each question, the probability of each choice: all in one scoring pass. None of a
    text that does not fit into the context."""
    replies = {choice: engine.encode_answer(choice) for choices, _ in questions for choice in choices}
    room = engine.context_tokens - max(map(len, replies.values()))
    prompts = [_prompts(engine, template, one, questions) for one in asked]
    fits = [max(map(len, own)) <= room for own in prompts]
    # The prompts of one question side by side, so that an engine can compute each once.
    pairs = [
        (prompt, replies[choice])
        for own, fit in zip(prompts, fits, strict=True)
        if fit
        for prompt, (choices, _) in zip(own, questions, strict=True)
        for choice in choices
    ]
    scores = iter(
        engine.score([prompt for prompt, _ in pairs], [reply for _, reply in pairs]) if pairs else []
    )
    return [
        [_shares(choices, [math.fsum(next(scores)) for _ in choices]) for choices, _ in questions]
        if fit
        else None
        for fit in fits
    ]


def _prompts(engine: Engine, template: Template, one: Asked, questions: Questions) -> list[tuple[int, ...]]:
    return [_question(engine, template, one, choices, top) for choices, top in questions]


def judging(row: Sample) -> Asked:
    """A text to judge by itself, outside a critique."""
    chat = of_chat(row)
    shown = {
        "task": chat.task,
        "conversation": as_text(chat.system + chat.before),
        "answer": row.text,
        **dict.fromkeys(("feedback", "references", "principle"), ""),
    }
    return Asked(row=row, chat=(), shown=shown, seed=0, pass_index=0)


def _question(
    engine: Engine, template: Template, one: Asked, choices: Sequence[str], top: str
) -> tuple[int, ...]:
    offered = f"{', '.join(choices[:-1])} or {choices[-1]}"
    text = template.render(**one.shown, choices=offered, top=top)
    return engine.encode_chat((Message(role="user", content=text),))


def _shares(choices: Sequence[str], logprobs: Sequence[float]) -> dict[str, float]:
    """The probability of each choice among these, from the logprobs (nats) of the replies."""
    most = max(logprobs)
    weights = [math.exp(logprob - most) for logprob in logprobs]
    return {choice: weight / math.fsum(weights) for choice, weight in zip(choices, weights, strict=True)}
