"""One answer of several: by vote, by the model's own judgement, or by both (`generate --best-of`).

    majority       the most frequent final answer, each finished sample one vote
    p-true         the sample whose p(Yes) is highest (the reward `p-true`)
    critic         the sample whose p(ok) is highest, as the critic's scored verdict has it (`critics.p_ok`)
    weighted-vote  the final answer with the largest sum of p(Yes)

Of samples that are equal in that, the first counts. What cannot be judged never wins over what can: an answer
whose final answer cannot be read has no vote, one without p(Yes) no weight. A sample that was cut off, or
failed, is chosen only where none was finished: the first that was cut off, then the first that failed. The
column `best_of` says how many samples there were, what chose, and `why` where nothing could be compared.

Source: Wang et al. 2023, "Self-Consistency Improves Chain of Thought Reasoning" (majority); Cobbe et al.
2021, "Training Verifiers to Solve Math Word Problems", section 4 (best of n by a verifier); Li et al. 2023,
"Making Language Models Better Reasoners with Step-Aware Verifier" (votes weighted by a verifier).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from selfrefine.config import By, Config, GenerateConfig
from selfrefine.engines.base import Engine, require
from selfrefine.errors import ConfigError
from selfrefine.prompts import Template
from selfrefine.records import Sample, groups
from selfrefine.rewards import REWARDS, majority, p_true
from selfrefine.rewards.base import RewardOptions, own_settings
from selfrefine.steps.critics import judging, p_ok

COLUMN = "best_of"
"""Of a chosen row."""
Voice = Fraction | str


class Choice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a row was chosen."""

    of: int
    by: By
    votes: int | None = None
    """For its final answer, of `voters`."""
    voters: int | None = None
    score: float | None = None
    """The chosen row's p(Yes) or p(ok); with weighted-vote its final answer's share of all weights."""
    why: str = ""
    """Why the samples could not be compared as `by` says."""


def choose(
    samples: Sequence[Sample],
    by: By,
    engine: Engine,
    settings: Mapping[str, dict[str, Any]],
    choice: Template | None = None,
) -> tuple[list[Sample], int]:
    """One sample of each task, in task order, with its column; and how many tokens were read to choose.

    engine: who judges; settings: the [reward] table, of which `majority` says what a final answer is; choice:
    the template by which `critic` asks. Raises: EngineError where the model cannot score.
    """
    own, _ = own_settings(REWARDS.get("majority"), settings.get("majority", {}))
    scores, read = dict[str, float | None](), 0
    if by == "critic":
        assert choice is not None
        scores, read = criticised(samples, engine, choice)
    elif by != "majority":
        scores, read = judged(samples, engine)
    chosen = []
    for group in groups(samples):
        voices = [majority.voice(row, own) for row in group]
        place, how = pick(group, by, voices, [scores.get(row.id) for row in group])
        row = group[place]
        extra = row.extra if isinstance(row.extra, dict) else {}
        chosen.append(replace(row, extra={**extra, COLUMN: Raw(msgspec.json.encode(how))}))
    return chosen, read


def judged(samples: Sequence[Sample], engine: Engine) -> tuple[dict[str, float | None], int]:
    """Row id to p(Yes), of the finished samples; equal answers to a task are asked about once. And the tokens
    of prompt, answer and question that were read."""
    require(engine, "score", "best-of by p-true needs logprobs")
    scorer = p_true.make(None, RewardOptions(engine=engine))
    first = _distinct(samples)
    rewards = dict(zip(first, scorer.score(list(first.values())), strict=True))
    read = sum(
        len(engine.encode_chat(p_true.asked(first[key].task, first[key].text)))
        for key, one in rewards.items()
        if one.value is not None
    )
    return {row.id: rewards[row.task.id, row.text].value for row in samples if finished(row)}, read


def criticised(
    samples: Sequence[Sample], engine: Engine, choice: Template
) -> tuple[dict[str, float | None], int]:
    """Row id to p(ok), and the tokens of the questions; as `judged`."""
    require(engine, "score", "best-of by critic needs logprobs")
    first = _distinct(samples)
    told = dict(zip(first, p_ok(engine, choice, [judging(row) for row in first.values()]), strict=True))
    scores = {row.id: told[row.task.id, row.text][0] for row in samples if finished(row)}
    return scores, sum(read for _, read in told.values())


def _distinct(samples: Sequence[Sample]) -> dict[tuple[str, str], Sample]:
    return {(row.task.id, row.text): row for row in reversed(samples) if finished(row)}


def finished(row: Sample) -> bool:
    return row.finish_reason == "stop" and row.error is None


def pick(
    group: Sequence[Sample], by: By, voices: Sequence[Voice | None], scores: Sequence[float | None]
) -> tuple[int, Choice]:
    """The place of the chosen sample among those of a task, and how it was chosen.

    voices: their final answers, None where there is none; scores: their p(Yes), None where not known.
    """
    whole = [i for i, row in enumerate(group) if finished(row)]
    how = Choice(of=len(group), by=by)
    if not whole:
        cut = [i for i, row in enumerate(group) if row.finish_reason != "error" and row.error is None]
        return (cut or [0])[0], replace(how, why="no sample was finished")
    if by in ("p-true", "critic"):
        known = {i: score for i in whole if (score := scores[i]) is not None}
        if not known:
            return whole[0], replace(how, why="no sample has a score")
        best = max(known, key=lambda i: (known[i], -i))
        return best, replace(how, score=known[best])
    return _voted(whole, how, voices, scores)


def _voted(
    whole: Sequence[int], how: Choice, voices: Sequence[Voice | None], scores: Sequence[float | None]
) -> tuple[int, Choice]:
    camps: dict[Voice, list[int]] = {}
    for i in whole:
        if (voice := voices[i]) is not None:
            camps.setdefault(voice, []).append(i)
    if not camps:
        return whole[0], replace(how, why="no final answer can be read")
    voters = sum(map(len, camps.values()))
    weights = {i: score for camp in camps.values() for i in camp if (score := scores[i]) is not None}
    weighed = how.by == "weighted-vote" and math.fsum(weights.values()) > 0.0

    def weight(camp: Sequence[int]) -> float:
        return math.fsum(weights.get(i, 0.0) for i in camp) if weighed else float(len(camp))

    # max() keeps the first of equals: the camp whose first sample came first.
    camp = max(camps.values(), key=weight)
    how = replace(how, votes=len(camp), voters=voters)
    if not weighed:
        why = "no sample has a score" if how.by == "weighted-vote" else ""
        return camp[0], replace(how, why=why)
    share = weight(camp) / math.fsum(weights.values())
    return max(camp, key=lambda i: (weights.get(i, -1.0), -i)), replace(how, score=min(1.0, share))


def check(config: Config, *, in_run: bool = False, said: Collection[str] = ()) -> None:
    """Raises: ConfigError for settings that contradict each other or would be ignored. `said`: what the
    command line gave, also if it is the default."""
    if in_run and config.generate.best_of:
        raise ConfigError(
            "generate.best_of does not work in a run, where select chooses among scored answers; "
            "evaluate.best_of says how held-out tasks are answered"
        )
    for name, own, plain in (
        ("generate", config.generate, GenerateConfig().n),
        ("evaluate", config.evaluate, 1),
    ):
        if not own.best_of:
            if own.by != "majority" or f"{name}.by" in said:
                raise ConfigError(f"{name}.by chooses among several samples: set {name}.best_of")
            continue
        if own.n != own.best_of and (own.n != plain or f"{name}.n" in said):
            raise ConfigError(
                f"{name}.best_of samples {own.best_of:,} answers and gives one: leave out {name}.n"
            )
        if own.best_of > 1 and not own.temperature:
            raise ConfigError(
                f"{name}.best_of: at temperature 0 all samples are equal; set {name}.temperature=1"
            )
