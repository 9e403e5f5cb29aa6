"""bleu, chrf, ter against hand-worked values and against sacreBLEU's public interface."""

from __future__ import annotations

from typing import Any

import pytest
from making import made
from sacrebleu.metrics import BLEU, CHRF, TER

from selfrefine.errors import ConfigError
from selfrefine.records import Message, Reward, Sample, Task

ROWS = [
    ("the cat sat on the mat", ["the cat is on the mat"]),
    ("a dog runs", ["a dog runs", "the dog is running"]),
    ("", ["something else"]),
]


def samples() -> list[Sample]:
    prompt = (Message(role="user", content="?"),)
    return [
        Sample(id=str(i), task=Task(id=str(i), prompt=prompt, references=tuple(refs)), text=text)
        for i, (text, refs) in enumerate(ROWS)
    ]


def scores(name: str, **settings: Any) -> list[Reward]:
    rewards: list[Reward] = made(name, **settings).score(samples())
    return rewards


def test_bleu_of_a_short_perfect_answer_is_one() -> None:
    first, second, third = scores("bleu")
    # 1- to 4-gram precisions 5/6, 3/5, 1/4 and 0 of 3 smoothed to 1/(2*3); brevity penalty 1
    assert first.value == pytest.approx((5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25)
    assert first.detail == "BLEU 37.99"
    assert second.value == pytest.approx(1.0)  # three words have no 4-gram: effective order
    assert third.value == 0.0
    assert first.signature.startswith("nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp|version:")
    assert second.signature.startswith("nrefs:2|")


def test_chrf_by_hand() -> None:
    task = Task(id="t", prompt=(Message(role="user", content="?"),), references=("ac",))
    (reward,) = made("chrf").score([Sample(id="s", task=task, text="ab")])
    # unigrams: precision and recall 1/2; bigrams: 0; longer ones do not exist
    assert reward.value == pytest.approx(0.25)
    assert "nc:6|nw:0" in reward.signature
    assert "nw:2" in scores("chrf", word_order=2)[0].signature


def test_ter_is_turned_round_and_stays_in_range() -> None:
    first, second, third = scores("ter")
    assert first.value == pytest.approx(1 - 1 / 6)  # one substitution, six reference words
    assert first.detail == "TER 16.67"
    assert second.value == 1.0
    assert third.value == 0.0
    task = Task(id="t", prompt=(Message(role="user", content="?"),), references=("a",))
    (long,) = made("ter").score([Sample(id="s", task=task, text="b c d e")])
    assert (long.value, long.detail) == (0.0, "TER 400.00")  # not below 0


@pytest.mark.parametrize(
    ("name", "metric"),
    [("bleu", BLEU(effective_order=True)), ("chrf", CHRF()), ("ter", TER())],
    ids=["bleu", "chrf", "ter"],
)
def test_the_corpus_figure_is_sacrebleus_not_the_mean(name: str, metric: Any) -> None:
    scorer = made(name)
    assert scorer.corpus is not None
    figure = scorer.corpus()
    sums = [sum(column) for column in zip(*map(figure.statistics, samples()), strict=True)]
    found = figure.result(sums, {1: 1, 2: 1})
    padded = [[refs[0] for _, refs in ROWS], [refs[1] if len(refs) > 1 else None for _, refs in ROWS]]
    expected = metric.corpus_score([text for text, _ in ROWS], padded).score
    assert (found.score, found.signature) == (pytest.approx(expected), str(metric.get_signature()))
    assert "nrefs:var" in found.signature
    mean = sum(100 * (reward.value or 0) for reward in scorer.score(samples())) / len(ROWS)
    assert expected != pytest.approx(mean, abs=0.5)


@pytest.mark.parametrize(
    ("name", "settings", "reference", "scored"),
    [
        # Split at spaces the sentence is one word, and all but the reference itself got 0.
        ("bleu", {}, "小猫坐在红色的垫子上。", False),
        ("bleu", {"tokenize": "intl"}, "小猫坐在红色的垫子上。", False),
        ("bleu", {"tokenize": "zh"}, "小猫坐在红色的垫子上。", True),
        ("bleu", {"tokenize": "char"}, "小猫坐在红色的垫子上。", True),
        ("bleu", {"tokenize": "none"}, "小猫 坐 在 红色 的 垫子 上 。", True),
        ("bleu", {"tokenize": "zh"}, "ねこがマットのうえにすわった。", False),
        ("bleu", {"tokenize": "char"}, "ねこがマットのうえにすわった。", True),
        ("bleu", {"tokenize": "zh"}, "แมวนั่งบนเสื่อสีแดง", False),
        ("bleu", {"tokenize": "char"}, "แมวนั่งบนเสื่อสีแดง", True),
        ("bleu", {}, "고양이가 매트 위에 앉았다.", True),  # Korean has spaces
        ("bleu", {}, "The station of Kyoto (京都) is large.", True),
        ("ter", {}, "小猫坐在红色的垫子上。", False),
        ("ter", {"asian_support": True}, "小猫坐在红色的垫子上。", False),
        ("ter", {"asian_support": True, "normalized": True}, "小猫坐在红色的垫子上。", True),
        ("ter", {"asian_support": True, "normalized": True}, "แมวนั่งบนเสื่อสีแดง", False),
        ("chrf", {}, "แมวนั่งบนเสื่อสีแดง", True),
        ("chrf", {"word_order": 2}, "แมวนั่งบนเสื่อสีแดง", False),
    ],
)
def test_text_without_spaces_needs_a_tokeniser_that_splits_it(
    name: str, settings: dict[str, Any], reference: str, scored: bool
) -> None:
    task = Task(id="t", prompt=(Message(role="user", content="?"),), references=(reference,))
    answer = reference[: len(reference) // 2] + reference[-1]  # right words, some of them missing
    (reward,) = made(name, **settings).score([Sample(id="s", task=task, text=answer)])
    if scored:
        assert reward.value is not None
        assert 0.1 < reward.value < 1
    else:
        assert reward.value is None
        assert "without spaces between words" in str(reward.error)


def test_settings_reach_the_metric_and_its_signature() -> None:
    assert "case:lc" in scores("bleu", lowercase=True)[0].signature
    with pytest.raises(ConfigError, match="tokenize"):
        scores("bleu", tokenize="nope")
