"""Counts as people read them, and which name was meant."""

from __future__ import annotations

import pytest

from selfrefine.layers import keys
from selfrefine.words import count, near


def test_counts_agree_with_their_noun() -> None:
    """It said "1 rounds are done" and "43189 tokens"."""
    assert [count(n, "round") for n in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]
    assert count(43_189, "token") == "43,189 tokens"
    assert [count(n, "reply", "replies") for n in (1, 2)] == ["1 reply", "2 replies"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train.learning_rate", "train.lr"),  # by spelling it was train.start
        ("learning_rate", "train.lr"),
        ("train.lora_r", "train.lora.r"),  # parts run together, not the initials of train.lr
        ("lora_rank", "train.lora.r"),
        ("train.batchsize", "train.batch_size"),
        ("generate.max_tokens", "generate.max_new_tokens"),  # what other programs call it
        ("train.num_train_epochs", "train.epochs"),
        ("temperature", "generate.temperature"),  # of three tables with one, the usual
        ("evaluate.temperatur", "evaluate.temperature"),
        ("trian.lr", "train.lr"),
        ("train.lora.rr", "train.lora.r"),  # no other table's reveal_references
        ("train.optimizer", None),  # nothing is better than train.batch_size
    ],
)
def test_the_setting_that_was_meant(typed: str, meant: str | None) -> None:
    assert near(typed, keys()) == meant
