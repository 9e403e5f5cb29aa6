"""Two policies on the same held-out tasks: what is compared, and by which test.

A measure with a figure of the whole corpus (bleu, chrf, ter, measured alone) is compared in that figure: it
is what is reported of a translation. Anything else is compared in the mean of the tasks' rewards.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfrefine.errors import DataError
from selfrefine.records import Sample, groups
from selfrefine.rewards.base import Scorer
from selfrefine.stats import Alternative, Comparison, compare, compare_corpus
from selfrefine.steps.evaluate import per_task


def compared(
    before: Sequence[Sample],
    after: Sequence[Sample],
    measures: Sequence[Scorer],
    *,
    seed: int,
    level: float = 0.95,
    alternative: Alternative = "two-sided",
) -> Comparison:
    """`before` and `after`: scored answers of two policies, paired by task id. `measures` scored them.

    A task counts where both policies' answers to it have a reward, so that a candidate cannot win by leaving
    hard tasks unscored. Raises: DataError where the two were scored in different ways.
    """
    check_signatures(before, after)
    corpus = measures[0].corpus if len(measures) == 1 else None
    if corpus is None:
        return compare(per_task(before), per_task(after), seed, level, alternative)
    figure = corpus()

    def sums(samples: Sequence[Sample]) -> dict[str, list[float] | None]:
        found: dict[str, list[float] | None] = {}
        for group in groups(samples):
            scored = [figure.statistics(row) for row in group if row.reward is not None]
            found[group[0].task.id] = [sum(column) for column in zip(*scored, strict=True)] or None
        return found

    return compare_corpus(sums(before), sums(after), figure.score, seed, level, alternative)


def check_signatures(before: Sequence[Sample], after: Sequence[Sample]) -> None:
    """A reward's file that was edited in between makes another measure of it: nothing may be paired then.

    Only what a reward says of its policy may differ. Raises: DataError naming the reward.
    """
    known = {(row.task.id, row.index): _signatures(row) for row in before}
    for row in after:
        ours, theirs = _signatures(row), known.get((row.task.id, row.index), {})
        for name in ours.keys() & theirs.keys():
            if ours[name] != theirs[name]:
                raise DataError(
                    f"task {row.task.id}: {name} was computed in two different ways "
                    f"({'|'.join(theirs[name])} and {'|'.join(ours[name])}), "
                    "so the two policies cannot be compared; start another run"
                )


def _signatures(row: Sample) -> dict[str, list[str]]:
    scored = (reward for reward in row.rewards if reward.value is not None)
    return {
        one.name: [part for part in one.signature.split("|") if not part.startswith("policy:")]
        for one in scored
    }
