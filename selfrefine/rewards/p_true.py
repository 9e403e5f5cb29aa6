"""p-true: how probable the model finds "Yes" against "No" when asked whether the answer is right.

The answer stands in an assistant turn of its own, so it needs no delimiters it could break out of. The two
words are scored as the next token in one pass; nothing is sampled. This is the model judging itself: a run
measured by it is self-measured.

Source: Kadavath et al. 2022, "Language Models (Mostly) Know What They Know", section 3 (P(True)).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from selfrefine.errors import EngineError
from selfrefine.records import Message, Reward, Sample, Task
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, unscored

if TYPE_CHECKING:
    from selfrefine.engines.base import Engine

QUESTION = "Is the answer above right? Reply with one word, Yes or No."
YES, NO = "Yes", "No"


def asked(task: Task, text: str) -> tuple[Message, ...]:
    """The chat that is scored, and that `select.learn verdicts` teaches the answer to: the same one."""
    return (
        *task.prompt,
        Message(role="assistant", content=text),
        Message(role="user", content=QUESTION),
    )


def make(_own: object, options: RewardOptions) -> Scorer:
    engine = options.engine
    assert engine is not None
    yes, no = (engine.encode_answer(word)[:1] for word in (YES, NO))
    if not yes or not no or yes == no:
        raise EngineError("reward p-true: Yes and No begin with the same token in this model's vocabulary")
    return Scorer(name="p-true", score=lambda samples: _score(samples, engine, yes, no))


def _score(
    samples: Sequence[Sample], engine: Engine, yes: tuple[int, ...], no: tuple[int, ...]
) -> list[Reward]:
    question = hashlib.sha256(QUESTION.encode()).hexdigest()[:12]
    signature = f"question:{question}|policy:{engine.policy}|{engine.signature}"
    prompts = [engine.encode_chat(asked(sample.task, sample.text)) for sample in samples]
    fits = [prompt for prompt in prompts if len(prompt) < engine.context_tokens]
    # Each prompt twice, side by side, so that an engine can compute it once.
    twice = [prompt for prompt in fits for _ in range(2)]
    scored = iter(engine.score(twice, [yes, no] * len(fits)) if fits else [])
    rewards = []
    for prompt in prompts:
        if len(prompt) >= engine.context_tokens:
            rewards.append(unscored("p-true", "prompt and answer are longer than the context", signature))
            continue
        (log_yes,), (log_no,) = next(scored), next(scored)
        value = 0.5 * (1 + math.tanh((log_yes - log_no) / 2))  # e^yes / (e^yes + e^no), without overflow
        detail = f"p(Yes) {value:.3f} of p(Yes)+p(No) {math.exp(log_yes) + math.exp(log_no):.3f}"
        rewards.append(checked("p-true", value, detail, signature))
    return rewards


REWARD = RewardKind(
    name="p-true",
    about='probability of "Yes" when the model is asked whether the answer is right',
    make=make,
    needs_engine=True,
    judge="policy",
    source="Kadavath et al. 2022, section 3",
)
