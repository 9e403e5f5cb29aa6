"""bleu, chrf, ter: sacreBLEU per sentence for the rows, per corpus for the summary.

bleu: sentence-level BLEU / 100, with effective order (short answers have no 4-grams). chrf: chrF2 / 100.
ter: 1 - TER/100, at least 0: TER counts edits per reference word, so lower is better and it can pass 100.

Chinese, Japanese and Thai have no spaces between words. Where the tokeniser does not split such a sentence,
it is one word, and any translation but the reference itself would get 0: these rows are unscored.

Source: Papineni et al. 2002 (BLEU); Popovic 2015, 2017 (chrF, chrF++); Snover et al. 2006 (TER); computed by
sacreBLEU (Post 2018), whose signature is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec.structs import asdict

from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import CorpusScore, RewardKind, RewardOptions, Scorer, checked, each, unscored
from selfrefine.rewards.scripts import unspaced

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric


Lowercase = Annotated[bool, Meta(description="Ignore case.")]


class BleuSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """These three are what sacreBLEU's own classes take."""

    tokenize: Annotated[
        Literal["13a", "intl", "char", "zh", "none"],
        Meta(
            description="sacreBLEU's tokeniser. `zh` for Chinese; `char` for Japanese, Thai and other text "
            "without spaces; `none` for text that is tokenised already."
        ),
    ] = "13a"
    lowercase: Lowercase = False


class ChrfSettings(Struct, frozen=True, forbid_unknown_fields=True):
    word_order: Annotated[int, Meta(ge=0, le=4, description="Longest word n-gram; 2 makes it chrF++.")] = 0
    lowercase: Lowercase = False


class TerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    normalized: Annotated[bool, Meta(description="Tokenise and normalise as TERCOM does.")] = False
    asian_support: Annotated[
        bool, Meta(description="Split Chinese into characters. Acts with `normalized` only.")
    ] = False
    case_sensitive: Annotated[bool, Meta(description="Count differences of case as edits.")] = False


def _unsplit(own: Struct, references: Sequence[str]) -> str | None:
    """Why this metric would take a sentence of these references for one word."""
    if isinstance(own, BleuSettings):
        splits, splits_han = own.tokenize in ("char", "none"), own.tokenize == "zh"
        way_out = f"{own.tokenize} does not split it; set reward.bleu.tokenize to zh for Chinese, else char"
    elif isinstance(own, TerSettings):
        splits, splits_han = False, own.normalized and own.asian_support
        way_out = "TER does not split it; use chrf, or for Chinese reward.ter.normalized and .asian_support"
    else:
        splits = not getattr(own, "word_order", 0)
        splits_han, way_out = False, "its words cannot be told apart; set reward.chrf.word_order to 0"
    if splits or not any(unspaced(text, han_is_split=splits_han) for text in references):
        return None
    return f"the reference is in a script without spaces between words: {way_out}"


def _scorer(
    name: str, label: str, own: Struct, metric: Callable[[], Metric], value: Callable[[float], float]
) -> Scorer:
    """`value` maps the metric's raw figure (0 to 100, TER beyond) to [0, 1]."""
    sentence = metric()

    def score(sample: Sample) -> Reward:
        if why := _unsplit(own, sample.task.references):
            return unscored(name, why)
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


def _kind(
    label: str,
    settings: type[Struct],
    source: str,
    value: Callable[[float], float] = lambda raw: raw / 100,
    **fixed: Any,
) -> RewardKind:
    name = label.lower()

    def make(own: Struct, options: RewardOptions) -> Scorer:
        from sacrebleu import metrics

        metric = getattr(metrics, label.upper())
        return _scorer(name, label, own, lambda: metric(**asdict(own), **fixed), value)

    return RewardKind(
        name=name,
        about=f"sentence-level {label} from sacreBLEU, scaled to 0 to 1; higher is better",
        make=make,
        settings=settings,
        needs_references=True,
        corpus=True,
        source=source,
    )


BLEU = _kind("BLEU", BleuSettings, "Papineni et al. 2002", effective_order=True)
CHRF = _kind("chrF", ChrfSettings, "Popovic 2015, 2017")
TER = _kind("TER", TerSettings, "Snover et al. 2006", lambda raw: 1 - min(raw, 100.0) / 100)
