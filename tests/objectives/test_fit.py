"""Which rows an objective takes, and that each one it leaves is counted."""

from __future__ import annotations

import pytest
from rows import item, settings

from selfrefine.errors import DataError
from selfrefine.objectives import OBJECTIVES
from selfrefine.objectives.base import Item
from selfrefine.objectives.fit import fit


def kept(items: list[Item], name: str) -> tuple[list[str], dict[str, int]]:
    made, counts = fit(items, OBJECTIVES.get(name), settings(name))
    return [i.id for i in made], counts


def labelled(id: str, role: str, pair: str | None = None, **more: object) -> Item:
    return item(1, id=id, role=role, pair=pair, **more)


def test_what_a_pair_rejects_is_never_an_example_to_follow() -> None:
    items = [labelled("good", "chosen", "p"), labelled("bad", "rejected", "p"), labelled("own", "learn")]
    assert kept(items, "sft") == (["good", "own"], {"rejected": 1})


@pytest.mark.parametrize("name", ["dpo", "ipo"])
def test_half_a_pair_falls_out(name: str) -> None:
    """A filter on the way, or replay, can take one row of a pair."""
    items = [
        labelled("a", "chosen", "p"),
        labelled("b", "chosen", "q"),
        labelled("c", "rejected", "p"),
        labelled("d", "learn"),
        labelled("e", "chosen", "r"),
        labelled("f", "chosen", "r"),
    ]
    assert kept(items, name) == (["a", "c"], {"unpaired": 4})


def test_a_pair_has_one_prompt() -> None:
    items = [labelled("a", "chosen", "p"), labelled("b", "rejected", "p", prompt_token_ids=(9,))]
    with pytest.raises(DataError, match="pair p: its rows answer different prompts"):
        kept(items, "dpo")


@pytest.mark.parametrize(("name", "word"), [("dpo", "pairs"), ("ipo", "pairs"), ("kto", "labels")])
def test_rows_of_another_kind_are_an_error_that_says_what_to_select(name: str, word: str) -> None:
    with pytest.raises(DataError, match=f"select {word}"):
        kept([labelled("a", "learn")], name)


def test_kto_takes_labels_with_and_without_pairs() -> None:
    items = [labelled("a", "chosen"), labelled("b", "rejected", "p"), labelled("c", "learn")]
    assert kept(items, "kto") == (["a", "b"], {"unlabelled": 1})


@pytest.mark.parametrize("name", ["reinforce", "rloo", "grpo"])
def test_groups_without_spread_are_left_out_and_counted(name: str) -> None:
    items = [
        *[item(1, id=f"flat{i}", group="flat", reward=1.0) for i in range(3)],
        *[item(1, id=f"mixed{i}", group="mixed", reward=float(i)) for i in range(2)],
        item(1, id="alone", group="alone", reward=0.5),
        item(1, id="null", group="mixed", reward=None),
    ]
    assert kept(items, name) == (["mixed0", "mixed1"], {"unscored": 1, "groups_without_spread": 2})


def test_weighted_sft_counts_rows_of_no_reward_and_of_no_weight() -> None:
    items = [item(1, id=str(i), group="g", reward=r) for i, r in enumerate((None, 0.0, 1.0))]
    assert kept(items, "weighted-sft") == (["2"], {"unscored": 1, "weightless": 1})
