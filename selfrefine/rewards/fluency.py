"""fluency: exp(mean logprob per token) of the answer under the bare model, in [0, 1].

The bare model, not the current policy: a policy that grew fond of its own habits would reward them. Nor the
policy a run starts from, where that is an adapter: its habits were learnt, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, unscored

if TYPE_CHECKING:
    from selfrefine.engines.base import Engine


def make(_own: object, options: RewardOptions) -> Scorer:
    engine = options.engine
    assert engine is not None
    return Scorer(name="fluency", score=lambda samples: _score(samples, engine))


def _score(samples: Sequence[Sample], engine: Engine) -> list[Reward]:
    signature = f"exp-mean-logprob|base|{engine.signature}"
    rewards: list[Reward | None] = [None] * len(samples)
    asked: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
    for i, sample in enumerate(samples):
        prompt, answer = _ids(sample, engine)
        if not answer:
            rewards[i] = unscored("fluency", "the answer is empty", signature)
        elif len(prompt) + len(answer) > engine.context_tokens:
            rewards[i] = unscored("fluency", "prompt and answer are longer than the context", signature)
        else:
            asked.append((i, prompt, answer))
    scored = engine.score([p for _, p, _ in asked], [a for _, _, a in asked], bare=True) if asked else []
    for (i, _, _), logprobs in zip(asked, scored, strict=True):
        mean = math.fsum(logprobs) / len(logprobs)
        if not math.isfinite(mean):
            rewards[i] = unscored("fluency", f"mean logprob is {mean}", signature)
        else:
            detail = f"{mean:.3f} nats per token"
            rewards[i] = checked("fluency", min(1.0, math.exp(mean)), detail, signature)
    return [reward for reward in rewards if reward is not None]


def _ids(sample: Sample, engine: Engine) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The row's own ids where they still say its text in this model's vocabulary, else encoded anew."""
    if sample.token_ids and sample.prompt_token_ids and engine.decode(sample.token_ids) == sample.text:
        return sample.prompt_token_ids, sample.token_ids
    prompt = engine.encode_chat(sample.context)
    if sample.finish_reason == "length":
        return prompt, engine.encode_text(sample.text)
    return prompt, engine.encode_answer(sample.text)


REWARD = RewardKind(
    name="fluency",
    about="mean token probability under the base model",
    make=make,
    needs_engine=True,
    judge="round-0",
)
