"""What is compared of two policies: the corpus figure where a translation metric measures, else the mean."""

from __future__ import annotations

import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from selfrefine.gating.comparison import compared
from selfrefine.records import Message, Sample, Task
from selfrefine.rewards.base import RewardOptions
from selfrefine.steps.reward import build, parse_spec, score

REFERENCES = [
    f"the {a} {b} is near the river" for a in ("old", "small", "green") for b in ("dog", "cat", "house")
]


def answers(texts: list[str], measure: str) -> tuple[list[Sample], tuple[object, ...]]:
    scorers = build([parse_spec(measure)], RewardOptions())
    rows = [
        Sample(
            id=f"t{i}.r0.s0",
            task=Task(id=f"t{i}", prompt=(Message(role="user", content=str(i)),), references=(reference,)),
            text=text,
        )
        for i, (text, reference) in enumerate(zip(texts, REFERENCES, strict=True))
    ]
    return score(rows, scorers), scorers


@pytest.mark.parametrize(
    ("name", "metric"), [("bleu", BLEU(effective_order=True)), ("chrf", CHRF()), ("ter", TER())]
)
def test_a_translation_metric_is_compared_as_sacrebleu_reports_it(
    name: str, metric: BLEU | CHRF | TER
) -> None:
    wrong = [text.replace("river", "tree") if i % 2 else text[: i + 9] for i, text in enumerate(REFERENCES)]
    better = [*REFERENCES[:6], *wrong[6:]]
    (before, scorers), (after, _) = answers(wrong, name), answers(better, name)
    found = compared(before, after, scorers, seed=0, alternative="greater")  # type: ignore[arg-type]
    raw = [metric.corpus_score(texts, [REFERENCES]).score / 100 for texts in (wrong, better)]
    expected = [1 - min(1.0, value) for value in raw] if name == "ter" else raw
    assert (found.before, found.after) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert found.difference is not None and found.lo is not None and found.hi is not None
    assert found.lo <= found.difference <= found.hi and found.test == "randomisation-10000"
    # Six of nine answers differ, all for the better: one swap in 2^6 is as good.
    assert (found.n, found.ties) == (9, 3) and found.p_value == pytest.approx(1 / 64, abs=0.005)


def test_two_measures_together_are_a_mean_and_so_is_any_other() -> None:
    rows, _ = answers(REFERENCES, "exact")
    both = build([parse_spec("bleu"), parse_spec("exact")], RewardOptions())
    for measures in (both, build([parse_spec("exact")], RewardOptions())):
        found = compared(rows, rows, measures, seed=0)
        assert (found.test, found.before, found.ties, found.p_value) == ("mcnemar-exact", 1.0, 9, 1.0)


def test_unscored_answers_leave_their_task_out_of_a_corpus_too() -> None:
    rows, scorers = answers(REFERENCES, "bleu")
    gone, _ = answers(REFERENCES, "bleu")
    gone[0] = Sample(id="t0.r0.s0", task=gone[0].task, text="", finish_reason="error", error="too long")
    found = compared(rows, gone, scorers, seed=0)  # type: ignore[arg-type]
    assert (found.n, found.unscored, found.before) == (8, 1, pytest.approx(1.0))
