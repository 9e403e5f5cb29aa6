"""rank-critic: the share of the other answers to its prompt that an answer beats, in the model's judgement.

For models that can compare answers and cannot grade them. Two answers stand in one prompt (`prompt`) as
A and B, and the two letters are scored as the next token: nothing is sampled, and nothing has to be parsed.
Many models prefer a place to an answer (Wang et al. 2023). So each pair is asked in both orders, and what
counts is half the difference of their log odds: a preference for a place, which adds the same log odds in
both, cancels to the digit. The mean of two probabilities would only shrink towards one half.

The value is the mean probability to beat the others. It ranks the answers to one prompt and says nothing of
how good they are: of four wrong answers the best has a high value, too. Equal texts count once and share
their value. Where a prompt has more than `opponents` + 1 distinct answers, each meets only some of the
others, drawn so that all meet as many.

Source: Qin et al. 2024, "Large Language Models are Effective Text Rankers with Pairwise Ranking Prompting",
sections 3.2 (scoring mode) and 3.3 (PRP-Allpair). There a pair whose two orders disagree is a tie; here the
odds say how far. Position bias: Wang et al. 2023, "Large Language Models are not Fair Evaluators".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from selfrefine import prompts
from selfrefine.errors import EngineError
from selfrefine.records import Message, Reward, Sample, Task, groups
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, unscored
from selfrefine.seeds import derive, generator

if TYPE_CHECKING:
    from selfrefine.engines.base import Engine

NAME = "rank-critic"
TEMPLATE = "compare"
"""Kind of the template, and the name of the shipped one."""
AT_ONCE = 256
"""Comparisons in one call of the engine, so that small groups fill its batches and memory stays bounded."""
CERTAIN = 30.0
"""Log odds are cut here, in nats: an impossible letter (-inf) must leave a finite difference."""

Pair = tuple[int, int]
"""Two places of a group's texts, in the order in which they are shown."""
Odds = dict[Pair, float]
"""Log odds that the first shown is called the better one; a pair that could not be asked is absent."""


class RankSettings(Struct, frozen=True, forbid_unknown_fields=True):
    opponents: Annotated[
        int,
        Meta(
            ge=1,
            description=(
                "Other answers that each is compared with, in both orders: all if there are no more, else a "
                "drawn choice. An odd number counts as the next even one."
            ),
        ),
    ] = 8
    prompt: Annotated[
        str, Meta(description="Template of the question: `compare`, or a file that shows both answers.")
    ] = TEMPLATE


class Group(Struct, frozen=True):
    """The distinct answers to one prompt."""

    task: Task
    texts: tuple[str, ...]
    pairs: tuple[Pair, ...]
    """Each of them once, the lower place first."""


def make(own: RankSettings, options: RewardOptions) -> Scorer:
    """Raises: EngineError where A and B begin with one token in the model's vocabulary; ConfigError (the
    template)."""
    engine = options.engine
    assert engine is not None
    letters = engine.encode_answer("A")[:1], engine.encode_answer("B")[:1]
    if not all(letters) or letters[0] == letters[1]:
        raise EngineError(f"reward {NAME}: A and B begin with the same token in this model's vocabulary")
    folder = options.prompts
    template = prompts.load(folder / f"{TEMPLATE}.md" if folder else own.prompt, TEMPLATE)
    judge = _Judge(engine, letters, template)

    def score(samples: Sequence[Sample]) -> list[Reward]:
        found: dict[str, dict[str, Reward]] = {}
        signature = f"{judge.signature}|opponents:{own.opponents}"
        made = [_group(rows, own.opponents, options.seed) for rows in groups(samples)]
        for part in _parts(made):
            for group, odds in zip(part, judge.compare(part), strict=True):
                found[group.task.id] = dict(zip(group.texts, _rewards(group, odds, signature), strict=True))
        return [found[sample.task.id][sample.text.strip()] for sample in samples]

    return Scorer(name=NAME, score=score)


def _group(rows: Sequence[Sample], opponents: int, seed: int) -> Group:
    """Sorted texts: neither the order of the rows nor how often one says the same changes who meets whom."""
    texts = tuple(sorted({row.text.strip() for row in rows}))
    task = rows[0].task
    return Group(task, texts, tuple(_meetings(len(texts), opponents, derive(seed, NAME, task.id))))


def _meetings(n: int, opponents: int, seed: int) -> list[Pair]:
    """Who meets whom, of n: all, or in a drawn ring each the nearest on either side, so that all meet as many
    and nobody is left in a circle of their own."""
    reach = (opponents + 1) // 2
    if n - 1 <= 2 * reach:
        return [(i, j) for i in range(n) for j in range(i + 1, n)]
    ring = generator(seed).permutation(n).tolist()
    met = [(ring[i], ring[(i + step) % n]) for i in range(n) for step in range(1, reach + 1)]
    return sorted((min(pair), max(pair)) for pair in met)


def _parts(made: Sequence[Group]) -> Iterator[list[Group]]:
    """Groups whose comparisons are asked together: at most AT_ONCE, or one group."""
    part: list[Group] = []
    for group in made:
        if part and 2 * sum(len(one.pairs) for one in (*part, group)) > AT_ONCE:
            yield part
            part = []
        part.append(group)
    if part:
        yield part


class _Judge:
    def __init__(
        self, engine: Engine, letters: tuple[tuple[int, ...], tuple[int, ...]], template: prompts.Template
    ) -> None:
        self.engine, self.letters, self.template = engine, letters, template

    @property
    def signature(self) -> str:
        """The policy of now: a run's later rounds are judged by another one."""
        return f"prompt:{self.template.sha256[:12]}|policy:{self.engine.policy}|{self.engine.signature}"

    def compare(self, part: Sequence[Group]) -> list[Odds]:
        """The odds of each group's pairs, in both orders."""
        asked: list[tuple[Odds, Pair, tuple[int, ...]]] = []
        odds: list[Odds] = [{} for _ in part]
        for group, own in zip(part, odds, strict=True):
            for i, j in group.pairs:
                both = [(pair, self._prompt(group, *pair)) for pair in ((i, j), (j, i))]
                if all(len(prompt) < self.engine.context_tokens for _, prompt in both):
                    asked += [(own, pair, prompt) for pair, prompt in both]
        if not asked:
            return odds
        # Each prompt twice, side by side, so that an engine can compute it once.
        twice = [prompt for _, _, prompt in asked for _ in range(2)]
        scored = iter(self.engine.score(twice, [*self.letters] * len(asked)))
        for own, pair, _ in asked:
            (log_a,), (log_b,) = next(scored), next(scored)
            own[pair] = log_a - log_b
        return odds

    def _prompt(self, group: Group, first: int, second: int) -> tuple[int, ...]:
        before, task = _asked(group.task)
        text = self.template.render(
            conversation=before, task=task, first=group.texts[first], second=group.texts[second]
        )
        return self.engine.encode_chat([Message(role="user", content=text)])


def _asked(task: Task) -> tuple[str, str]:
    """What is before the last user message, as lines `role: text`, and that message."""
    last = max((i for i, one in enumerate(task.prompt) if one.role == "user"), default=len(task.prompt) - 1)
    return "\n".join(f"{one.role}: {one.content}" for one in task.prompt[:last]), task.prompt[last].content


def _rewards(group: Group, odds: Odds, signature: str) -> list[Reward]:
    """One for each text."""
    n = len(group.texts)
    if n < 2:
        why = "all answers to the prompt are the same; two different ones are needed to compare"
        return [unscored(NAME, why, signature)]
    wins: list[list[float]] = [[] for _ in range(n)]
    first: list[float] = []
    for i, j in group.pairs:
        there, back = odds.get((i, j), math.nan), odds.get((j, i), math.nan)
        if math.isnan(there) or math.isnan(back):  # too long, or neither letter is possible
            continue
        there, back = (max(-CERTAIN, min(CERTAIN, one)) for one in (there, back))
        won = _probability((there - back) / 2)
        wins[i].append(won)
        wins[j].append(1 - won)
        first += [_probability(there), _probability(back)]
    rewards = []
    for own in wins:
        if not own:
            why = "task and two answers are longer than the context, with each other answer"
            rewards.append(unscored(NAME, why, signature))
            continue
        value = math.fsum(own) / len(own)
        # A judge without a preference for a place calls the first one better half the time.
        place = f"the answer shown first is preferred with {math.fsum(first) / len(first):.3f}"
        others = "1 other" if len(own) == 1 else f"{len(own)} others"
        rewards.append(checked(NAME, value, f"beats {value:.3f} of {others}; {place}", signature))
    return rewards


def _probability(log_odds: float) -> float:
    return 0.5 * (1 + math.tanh(log_odds / 2))  # 1 / (1 + e^-x), without overflow


REWARD = RewardKind(
    name=NAME,
    about="share of the other answers to its prompt that the model prefers it to",
    make=make,
    settings=RankSettings,
    needs_engine=True,
    asks=lambda own: {TEMPLATE: own.prompt},
    judge="policy",
    why_no_measure=f"{NAME} compares the answers to one prompt and does not say how good they are",
    source="Qin et al. 2024, section 3",
)
