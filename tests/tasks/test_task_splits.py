"""Splits: nothing that is measured on was trained on, and every split is like the others."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from selfrefine.errors import ConfigError, DataError
from selfrefine.records import Message, Task, prompt_key
from selfrefine.tasks import TaskOptions, load
from selfrefine.tasks.splits import dedupe, draw, split


def task(name: str, text: str | None = None, difficulty: str = "") -> Task:
    return Task(
        id=name,
        prompt=(Message(role="user", content=text or f"Question {name}?"),),
        tags={"difficulty": difficulty} if difficulty else {},
    )


def many(count: int, difficulty: str = "", prefix: str = "t") -> list[Task]:
    return [task(f"{prefix}{i}", difficulty=difficulty) for i in range(count)]


def ids(tasks: list[Task] | tuple[Task, ...]) -> list[str]:
    return [t.id for t in tasks]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is 2 + 2?", "  what\tIS 2 +\n2? ", True),
        ("ﬁve", "FIVE", True),  # NFKC
        ("Straße", "STRASSE", True),  # casefold, where lower() keeps them apart
        ("cafe\u0301", "CAF\u00c9", True),
        ("a\u00a0b\u2028c", "a b c", True),
        ("2 + 2", "2 - 2", False),  # punctuation is the question here
        ("2+2?", "2+2", False),
    ],
)
def test_what_makes_two_prompts_one_question(one: str, other: str, same: bool) -> None:
    assert (prompt_key(task("a", one).prompt) == prompt_key(task("b", other).prompt)) is same


def test_dedupe_keeps_the_first_and_counts_the_rest() -> None:
    kept, dropped = dedupe([task("a", "x"), task("b", "y"), task("c", " X "), task("d", "x")])
    assert (ids(kept), dropped) == (["a", "b"], 2)


def test_splits_are_disjoint_by_id_and_by_prompt_though_the_source_repeats_itself() -> None:
    """Split by row, 68 of 83 test prompts of a one-digit task stood in training too: memory, not learning."""
    tasks = [task(f"row{i}", f"Question {i % 300}") for i in range(900)]
    splits = split(tasks, seed=0, gate=50, test=100)
    parts = (splits.train, splits.gate, splits.test)
    assert [len(p) for p in parts] == [150, 50, 100]
    for one, other in combinations(parts, 2):
        assert not set(ids(one)) & set(ids(other))
        assert not {prompt_key(t.prompt) for t in one} & {prompt_key(t.prompt) for t in other}
    assert sum(map(len, (splits.train, splits.gate, splits.test))) == 300


def test_each_split_holds_each_difficulty_in_proportion() -> None:
    """Taking the first distinct prompts made a test set of 48 % one-digit sums where the task has 7 %."""
    tasks = many(70, "easy", "e") + many(930, "hard", "h")
    splits = split(tasks, seed=5, gate=100, test=200, train=500)
    for part, easy in ((splits.test, 14), (splits.gate, 7), (splits.train, 35)):
        assert abs(Counter(t.tags["difficulty"] for t in part)["easy"] - easy) <= 1


def test_difficulties_of_one_task_each_are_still_shuffled() -> None:
    """Spread evenly, all of them would stand at the same place, and some split would get none."""
    splits = split([task(f"t{i}", difficulty=str(i)) for i in range(400)], seed=0, gate=100, test=100)
    for part in (splits.test, splits.gate):
        assert 20 < sum(int(t.tags["difficulty"]) < 200 for t in part) < 80


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_the_file() -> None:
    tasks = many(200)
    first = split(tasks, seed=1, gate=20, test=40)
    assert split(tasks[::-1], seed=1, gate=20, test=40) == first
    assert set(ids(split(tasks, seed=2, gate=20, test=40).test)) != set(ids(first.test))
    assert ids(first.test) != [f"t{i}" for i in range(40)]


def test_sizes_are_counts_or_shares_of_the_distinct_tasks() -> None:
    splits = split([*many(200), task("again", "question T0?")], seed=0, gate=0.1, test=0.25, train=100)
    assert [len(splits.train), len(splits.gate), len(splits.test)] == [100, 20, 50]
    assert len(split(many(10), seed=0, gate=0, test=0.01).test) == 1  # a share never rounds to nothing
    for gate, test in ((1.5, 1), (1, -1), (1, -0.5), (1.0, 1)):
        with pytest.raises(ConfigError, match="share below 1"):
            split(many(10), seed=0, gate=gate, test=test)


def test_too_few_distinct_tasks_says_how_many_there_are_and_how_many_each_split_asks() -> None:
    tasks = [task(f"r{i}", f"q{i % 40}") for i in range(100)]
    with pytest.raises(DataError) as caught:
        split(tasks, seed=0, gate=10, test=20, train=30)
    assert "40 distinct tasks (in 100 rows)" in str(caught.value)
    assert "need 60: train 30, gate 10, test 20" in str(caught.value)
    with pytest.raises(DataError, match="train at least 1"):
        split(tasks, seed=0, gate=20, test=20)


def rounds(train: list[Task], count: int, per_round: int) -> list[tuple[list[str], bool]]:
    drawn = (draw(train, index, per_round, seed=4) for index in range(1, count + 1))
    return [(ids(tasks), reshuffled) for tasks, reshuffled in drawn]


def test_rounds_use_all_of_train_before_any_task_comes_again() -> None:
    """10 tasks, 4 a round: rounds 1 and 2 and half of 3 are the first pass, and so on."""
    drawn = rounds(many(10), 5, 4)
    assert [reshuffled for _, reshuffled in drawn] == [False, False, True, False, False]
    flat = [name for names, _ in drawn for name in names]
    assert len(set(flat[:10])) == len(set(flat[10:])) == 10
    assert flat[:10] != flat[10:]


@pytest.mark.parametrize(("size", "per_round"), [(10, 4), (10, 7), (10, 9), (10, 10), (3, 2), (1, 1), (7, 5)])
def test_no_task_twice_in_a_round_and_every_pass_is_whole(size: int, per_round: int) -> None:
    drawn = rounds(many(size), 3 * size, per_round)
    assert all(len(set(names)) == per_round for names, _ in drawn)
    flat = [name for names, _ in drawn for name in names]
    for start in range(0, len(flat), size):
        assert len(set(flat[start : start + size])) == size
    # A round is told to be reshuffled exactly where it holds the first task of a later pass.
    begins = {start // per_round for start in range(size, len(flat), size)}
    assert {index for index, (_, reshuffled) in enumerate(drawn) if reshuffled} == begins


def test_a_round_larger_than_train_is_all_of_train() -> None:
    assert [(sorted(names), again) for names, again in rounds(many(3), 3, 64)] == [
        (["t0", "t1", "t2"], False),
        (["t0", "t1", "t2"], True),
        (["t0", "t1", "t2"], True),
    ]
    with pytest.raises(ConfigError):
        draw([], 1, 4, seed=0)


def test_a_draw_depends_on_its_arguments_only() -> None:
    """A resumed run asks for round 3 without having asked for rounds 1 and 2."""
    train = many(50)
    assert draw(train, 3, 16, seed=7) == draw(train[::-1], 3, 16, seed=7)
    assert draw(train, 3, 16, seed=7) != draw(train, 3, 16, seed=8)


def chain_sum(max_digits: int) -> list[Task]:
    settings: dict[str, str | int | float | bool] = {
        "min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": max_digits
    }  # fmt: skip
    return list(load("gym:chain_sum", TaskOptions(n=4000, settings=settings)))


def test_the_demo_source_has_enough_distinct_tasks_and_its_one_digit_sister_has_not() -> None:
    kept, dropped = dedupe(chain_sum(2))
    assert abs(len(kept) - 2091) < 60 and len(kept) + dropped == 4000
    splits = split(kept, seed=0, gate=100, test=400)
    one_digit = sum("num_digits=1" in t.tags["difficulty"] for t in splits.test) / 400
    assert one_digit < 0.12
    with pytest.raises(DataError, match=r"(19\d|200) distinct tasks \(in 4,000 rows\)"):
        split(chain_sum(1), seed=0, gate=100, test=300)


def test_a_weighted_round_draws_by_weight_and_no_task_twice() -> None:
    """100 tasks of weight 4 and 100 of weight 1, 50 drawn. Drawn with replacement 40 would be heavy; without,
    they run out: with x^4 + x = 1.5, x = 0.8854, it is 100 * (1 - x^4) = 38.5 (Wallenius 1963)."""
    train = [*many(100, prefix="a"), *many(100, prefix="b")]
    weight = lambda t: 4.0 if t.id.startswith("a") else 1.0  # noqa: E731
    heavy = 0
    for k in range(1, 41):
        drawn, again = draw(train, k, 50, seed=3, weight=weight)
        assert len(set(ids(drawn))) == 50 and not again
        heavy += sum(t.id.startswith("a") for t in drawn)
    assert abs(heavy / 40 - 38.5) < 1.5  # the mean of 40 rounds; one round is off by about 3
    assert ids(draw(list(reversed(train)), 1, 50, 3, weight)[0]) == ids(draw(train, 1, 50, 3, weight)[0])


def test_equal_weights_are_a_draw_of_their_own_and_no_weights_the_old_one() -> None:
    train = many(20)
    assert draw(train, 2, 5, 0, None) == draw(train, 2, 5, 0)
    assert set(ids(draw(train, 1, 50, 0, lambda _: 1.0)[0])) == set(ids(train))
