"""What bleu, chrf and ter share: sacreBLEU per sentence for the rows, per corpus for the summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import CorpusScore, Scorer, checked, each

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric


def scorer(name: str, label: str, metric: Callable[[], Metric], value: Callable[[float], float]) -> Scorer:
    """`value` maps the metric's raw figure (0 to 100, TER beyond) to [0, 1]."""
    sentence = metric()

    def score(sample: Sample) -> Reward:
        raw = sentence.sentence_score(sample.text, list(sample.task.references)).score
        clipped = min(1.0, max(0.0, value(raw)))  # BLEU of a perfect match is 100.00000000000004
        # The signature knows the number of references only after scoring.
        return checked(name, clipped, f"{label} {raw:.2f}", str(sentence.get_signature()))

    return Scorer(name=name, score=each(score), corpus=lambda: Corpus(metric(), value))


class Corpus:
    """A corpus score from summed segment statistics: the rows are not held.

    sacreBLEU offers this through private methods only; a test holds it against the public `corpus_score`.
    """

    def __init__(self, metric: Metric, value: Callable[[float], float]) -> None:
        self._metric, self._value = metric, value

    def statistics(self, sample: Sample) -> Sequence[float]:
        references = [[reference] for reference in sample.task.references]
        (stats,) = self._metric._extract_corpus_statistics([sample.text], references)
        return list(map(float, stats))

    def score(self, sums: Sequence[float]) -> float:
        raw = self._metric._compute_score_from_stats(list(sums)).score
        return min(1.0, max(0.0, self._value(raw)))

    def result(self, sums: Sequence[float], references: Mapping[int, int]) -> CorpusScore:
        self._metric.num_refs = next(iter(references)) if len(references) == 1 else -1  # -1: shown as "var"
        score = self._metric._compute_score_from_stats(list(sums)).score
        return CorpusScore(score=score, signature=str(self._metric.get_signature()))
